"""NVRTC by cuda-bindings, which compiles kernels without a GPU and without a driver."""

from __future__ import annotations

from typing import Any

from zarrgpu.devices.kernel_sources import CompileError


def _nvrtc() -> Any:
    from cuda.bindings import nvrtc

    return nvrtc


class BindingsNvrtc:
    """`kernel_sources.Nvrtc` by cuda-bindings."""

    def version(self):
        return tuple(_check(_nvrtc().nvrtcVersion()))

    def architectures(self):
        return sorted(_check(_nvrtc().nvrtcGetSupportedArchs())[0])

    def compile(self, source, name, headers, options, *, ptx):
        (program,) = _check(
            _nvrtc().nvrtcCreateProgram(
                source.encode(), name.encode(), len(headers),
                [text.encode() for text in headers.values()], [h.encode() for h in headers],
            )
        )  # fmt: skip
        (status,) = _nvrtc().nvrtcCompileProgram(
            program, len(options), [o.encode() for o in options]
        )
        log = self.read(program, _nvrtc().nvrtcGetProgramLogSize, _nvrtc().nvrtcGetProgramLog)
        text = log.rstrip(b"\0").decode()
        if status != _nvrtc().nvrtcResult.NVRTC_SUCCESS:
            raise CompileError(text)
        size, get = (
            (_nvrtc().nvrtcGetPTXSize, _nvrtc().nvrtcGetPTX)
            if ptx
            else (_nvrtc().nvrtcGetCUBINSize, _nvrtc().nvrtcGetCUBIN)
        )
        return self.read(program, size, get), text

    @staticmethod
    def read(program, size, get):
        # not bytes: those of length 1 (an empty log) are one object for the whole process, and a
        # NUL written into b" " made every space of later tests a NUL
        content = bytearray(_check(size(program))[0])
        _check(get(program, content))
        return bytes(content)


def _check(result):
    status, *values = result
    assert status == _nvrtc().nvrtcResult.NVRTC_SUCCESS, status
    return values
