# zarrgpu with CUDA 13, PyTorch and the demo:
#   docker build -t zarrgpu .
#   docker run --rm --gpus all -v "$PWD/report:/work/demo-report" zarrgpu demo
# Not built in our CI, which has no Docker. For a driver older than 580 take the extra cuda12.
FROM nvidia/cuda:13.0.2-runtime-ubuntu24.04

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv g++ \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv /opt/zarrgpu
ENV PATH=/opt/zarrgpu/bin:$PATH \
    PIP_NO_CACHE_DIR=1

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY zarrgpu zarrgpu
COPY kernels kernels
COPY scripts scripts
RUN pip install -c constraints.txt ".[cuda13,slides,extended,cloud,torch,demo]"

WORKDIR /work
ENTRYPOINT ["zarrgpu"]
CMD ["doctor"]
