"""Options of portable runners, which Beam's Python SDK does not know and the job server takes with the job."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2

from pipelines.cli.switches import truth

Kind = Literal["switch", "integer", "list", "text"]

ON = "attached_mode fail_on_checkpointing_errors operator_chaining".split()
"""Flink switches that are on by default."""

SWITCHES = (
    "allow_non_restored_state auto_balance_write_files_sharding_enabled disable_metrics enable_heap_dumps "
    "enable_stable_input_drain externalized_checkpoints_enabled faster_copy finish_bundle_before_checkpointing "
    "force_slot_sharing_group force_unaligned_checkpoint_enabled load_balance_bundles object_reuse "
    "re_iterable_group_by_key_result retain_externalized_checkpoints_on_cancellation unaligned_checkpoint_enabled "
    "use_data_stream_for_batch"
).split()

INTEGERS = (
    "auto_watermark_interval checkpoint_timeout_millis checkpointing_interval environment_expiration_millis "
    "execution_retry_delay file_input_split_max_size_m_b job_check_interval_in_secs latency_tracking_interval "
    "max_bundle_size max_bundle_time_mills max_parallelism min_pause_between_checkpoints num_concurrent_checkpoints "
    "number_of_execution_retries parallelism shutdown_sources_after_idle_ms tolerable_checkpoint_failure_number"
).split()

TEXTS = (
    "checkpointing_mode execution_mode_for_batch flink_conf_dir report_checkpoint_duration savepoint_path "
    "state_backend state_backend_factory state_backend_storage_path"
).split()

KINDS: dict[int, Kind] = {
    beam_job_api_pb2.PipelineOptionType.BOOLEAN: "switch",
    beam_job_api_pb2.PipelineOptionType.INTEGER: "integer",
    beam_job_api_pb2.PipelineOptionType.ARRAY: "list",
}


@dataclass(frozen=True)
class RunnerOption:
    """An option of a runner.

    Attributes
    ----------
    name : str
    kind : "switch", "integer", "list" or "text"
    is_on : bool
        A switch is on by default.
    """

    name: str
    kind: Kind = "text"
    is_on: bool = False

    @classmethod
    def of(cls, described: beam_job_api_pb2.PipelineOptionDescriptor) -> "RunnerOption":
        """From a job server's description."""
        return cls(described.name, KINDS.get(described.type, "text"), described.default_value == "true")

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add it to a parser, without a default, so that the server's default applies.

        A switch may have a value and means what it says: Beam itself adds switches without values, and turns off those
        that are on by default if their name is given.
        """
        flag = f"--{self.name}"
        if self.kind == "switch":
            parser.add_argument(flag, nargs="?", type=truth, const=True, default=None)
        elif self.kind == "list":
            parser.add_argument(flag, action="append")
        else:
            parser.add_argument(flag, type=int if self.kind == "integer" else str)


FLINK = (
    *(RunnerOption(name, "switch", name in ON) for name in [*SWITCHES, *ON]),
    *(RunnerOption(name, "integer") for name in INTEGERS),
    *(RunnerOption(name) for name in TEXTS),
)
"""Options of Beam's Flink runner, for a command without a job server."""


class RunnerOptions(PipelineOptions):
    """The runner's options of a command as a Beam options class, so that Beam sends them to the job server.

    When Beam submits a job it requests the server's options too, and keeps those that it already knows.
    """

    given: ClassVar[Sequence[RunnerOption]] = ()

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        for option in cls.given:
            option.add_to(parser)


def beams_spelling(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Flags with Beam's switches in the form without a value, the only one that Beam accepts.

    ``--streaming=true`` becomes ``--streaming``, and ``--streaming=false`` is removed. ``--dry_run`` alone becomes
    ``--dry_run=True``, as Beam requires a value there.
    """
    spelt: list[str] = []
    for number, word in enumerate(words):
        flag, _, value = word.partition("=")
        action = parser._option_string_actions.get(flag)
        is_switch = action is not None and action.nargs == 0
        if is_switch and value.lower() in ("true", "false"):
            spelt = [*spelt, flag] if value.lower() == "true" else [each for each in spelt if each != flag]
        elif word == "--dry_run" and (words[number + 1 :] or ["--"])[0].startswith("--"):
            spelt.append("--dry_run=True")
        else:
            spelt.append(word)
    return spelt
