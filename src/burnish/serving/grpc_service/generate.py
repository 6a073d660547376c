# SPDX-License-Identifier: Apache-2.0
"""Writes `oip_pb2` from `oip.proto`: `python -m burnish.serving.grpc_service.generate`.

protoc's own module would register the messages with protobuf's default pool, where those of
any other client or server of the protocol in the process have the same names: whichever is
loaded second fails. So the module here has the same content in a pool of its own.
"""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path

from burnish.core.errors import Broken, Missing

PROTO = Path(__file__).with_name("oip.proto")

_MODULE = '''\
# SPDX-License-Identifier: Apache-2.0
# Generated from oip.proto by generate.py: do not edit.
# fmt: off
"""The protocol's messages, in a descriptor pool of their own: see generate.py."""

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

DESCRIPTOR = DescriptorPool().AddSerializedFile(
{literals}
)

for _name, _descriptor in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = GetMessageClass(_descriptor)
'''

_STUB = """\
# SPDX-License-Identifier: Apache-2.0
# Generated from oip.proto by generate.py: do not edit.
# mypy: disallow-subclassing-any=False, disallow-any-generics=False
# ruff: noqa
# fmt: off
"""


def compiled(proto: Path = PROTO) -> tuple[bytes, str]:
    """Returns what protoc makes of the file: its serialized descriptor, and a stub for types."""
    try:
        from grpc_tools import protoc
    except ImportError as error:
        raise Missing("writing the messages anew", "grpcio-tools", "dev") from error
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    with tempfile.TemporaryDirectory() as folder:
        set_, stub = Path(folder, "set"), Path(folder, f"{proto.stem}_pb2.pyi")
        options = [f"-I{proto.parent}", f"--descriptor_set_out={set_}", f"--pyi_out={folder}"]
        status = protoc.main(["protoc", *options, str(proto)])
        if status != 0:
            raise Broken(f"protoc refused {proto.name}, with status {status}")
        (file,) = FileDescriptorSet.FromString(set_.read_bytes()).file
        return file.SerializeToString(deterministic=True), stub.read_text("utf-8")


def main() -> None:
    """Writes the module and its stub beside the .proto."""
    descriptor, stub = compiled()
    rows = [repr(descriptor[start : start + 32]) for start in range(0, len(descriptor), 32)]
    module = _MODULE.format(literals=textwrap.indent("\n".join(rows), "    "))
    PROTO.with_name("oip_pb2.py").write_text(module, "utf-8")
    PROTO.with_name("oip_pb2.pyi").write_text(_STUB + stub, "utf-8")


if __name__ == "__main__":
    main()
