"""A chain run backwards over one chunk, on the host: the reference for every device."""

from __future__ import annotations

from zarrgpu.codecs.base import CodecChain, CodecError, checked
from zarrgpu.model import ByteArray

_STAGE_SLACK_NBYTES = 1 << 20


def encoded_limit_nbytes(decoded_nbytes: int) -> int:
    """Size above which an encoded chunk is a corrupt size, not data: no codec doubles its input."""
    return 2 * decoded_nbytes + _STAGE_SLACK_NBYTES


def decode_stored(chain: CodecChain, encoded: ByteArray, out: ByteArray | None) -> ByteArray:
    """`decode_chunk` of what a store gave, refused where that is too much to be the chunk."""
    size = encoded.size
    # nearly all chunks pass the first bound; the second, which is no lower, walks the chain
    if size > encoded_limit_nbytes(chain.decoded_nbytes) and (
        size > encoded_limit_nbytes(chain.widest_nbytes)
    ):
        msg = f"takes {size} bytes for {chain.decoded_nbytes} decoded ones"
        raise CodecError(msg)
    return decode_chunk(chain, encoded, out)


def decode_chunk(chain: CodecChain, encoded: ByteArray, out: ByteArray | None) -> ByteArray:
    """Run a codec chain backwards over one chunk.

    Parameters
    ----------
    chain : CodecChain
    encoded : uint8 array
    out : uint8 array, shape (chain.decoded_nbytes,), or None
        Written where a codec decodes; an uncompressed chunk is returned as a view of `encoded`.

    Returns
    -------
    uint8 array, shape (chain.decoded_nbytes,)
        Of any size where the chain has an object codec, whose input it is.

    Raises
    ------
    CodecError
        Prefixed with the codec's name where that is not the last one.
    """
    if len(chain.codecs) == 1 and chain.object_codec is None:  # nearly all chains, in little time
        (codec,) = chain.codecs
        try:
            data = codec.decode_host(encoded, chain.decoded_nbytes, out)
        except CodecError as error:
            raise CodecError(f"{codec.name}: {error}") from error
        checked(data.size, chain.decoded_nbytes, exact=True)
        return data
    data = encoded
    stages = list(zip(chain.codecs, chain.stage_nbytes(), strict=True))
    while stages:
        codec, nbytes = stages.pop()
        try:
            if stages or nbytes is None:
                limit = encoded_limit_nbytes(chain.widest_nbytes) if nbytes is None else nbytes
                data = codec.decode_host(data, limit, None)
                if nbytes is not None:
                    checked(data.size, nbytes, exact=True)
            else:
                data = codec.decode_host(data, nbytes, out)
        except CodecError as error:
            raise CodecError(f"{codec.name}: {error}") from error
    if chain.object_codec is None:
        checked(data.size, chain.decoded_nbytes, exact=True)
    return data
