"""NVRTC by CuPy's bindings, which compiles the kernels."""

from __future__ import annotations

from zarrgpu.devices import kernel_sources
from zarrgpu.devices.cupy_errors import import_cupy
from zarrgpu.errors import MissingDependencyError


class CupyNvrtc:
    """`kernel_sources.Nvrtc` by CuPy's bindings."""

    def version(self) -> tuple[int, int]:
        """Major and minor release."""
        cupy = import_cupy()
        try:
            major, minor = cupy.cuda.nvrtc.getVersion()
        except Exception as error:  # what CuPy raises for a missing library depends on its version
            msg = (
                "nvrtc is needed to compile the kernels and does not load "
                f"({str(error).splitlines()[0]}); run: pip install nvidia-cuda-nvrtc"
            )
            raise MissingDependencyError(msg) from error
        return int(major), int(minor)

    def architectures(self) -> list[int]:
        """Compute capabilities that it compiles for, as 10 * major + minor."""
        return sorted(int(a) for a in import_cupy().cuda.nvrtc.getSupportedArchs())

    def compile(
        self,
        source: str,
        name: str,
        headers: dict[str, str],
        options: tuple[str, ...],
        *,
        ptx: bool,
    ) -> tuple[bytes, str]:
        """Compile to a CUBIN or PTX; also the compiler's log."""
        nvrtc = import_cupy().cuda.nvrtc
        texts = [text.encode() for text in headers.values()]
        names = [header.encode() for header in headers]
        program = nvrtc.createProgram(source, name, texts, names)
        try:
            try:
                nvrtc.compileProgram(program, list(options))
            except nvrtc.NVRTCError as error:
                raise kernel_sources.CompileError(nvrtc.getProgramLog(program)) from error
            image = nvrtc.getPTX(program) if ptx else nvrtc.getCUBIN(program)
            content = image.encode() if isinstance(image, str) else bytes(image)
            return content, str(nvrtc.getProgramLog(program))
        finally:
            nvrtc.destroyProgram(program)
