"""How a collection goes into the steps of a job."""

from typing import Any

from rasteret_beam.kernels.tables.ipc import table_from_ipc, table_to_ipc


class Pickled:
    """A collection's pickle: its table as an IPC stream, without what can be read again.

    A pickle of an Arrow table has an object for each field of each band, which took a job of 64 bands a second.
    """

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name not in ("_dataset", "_bands")}
        return kept | {"table": None if kept["table"] is None else table_to_ipc(kept["table"])}

    def __setstate__(self, state: dict[str, Any]) -> None:
        stream = state["table"]
        self.__dict__.update(state | {"table": None if stream is None else table_from_ipc(stream)})
