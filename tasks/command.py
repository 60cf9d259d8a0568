"""How every command of the project ends: warnings, errors and exit codes."""

import os
import signal
import sys
import warnings
from collections.abc import Callable

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from tasks import processes


def run_command(cli: Callable[[], object]) -> None:
    """Runs a command line; what a user got wrong, or a full disk, ends it with one sentence and exit code 1.

    Ctrl-C ends it with 130, SIGTERM with 143; flags that cannot be parsed with 2. A run of several processes ends as a whole.
    With the environment variable MOBILETAP_DEBUG set, the traceback is shown.
    """
    for harmless in (
        ".*LeafSpec.*",  # inside Lightning, with new releases of torch
        r"(?s).*(JsonargparseDeprecationWarning|``instantiate_classes`` was)",  # its successor is there since jsonargparse 4.49 only
        "Checkpoint directory .* exists and is not empty",  # a continued run's own
        ".*callbacks used to create the checkpoint need to be provided",  # evaluation needs none of them
        "Found .* module.* in eval mode at the start of training",  # frozen layers
        "You're resuming from a checkpoint that ended before the epoch ended",  # the data module keeps the place
        "Using `DistributedSampler` with the dataloaders",  # images that it repeats count once
    ):
        warnings.filterwarnings("ignore", message=harmless)
    processes.join_run()
    succeeded = False
    try:
        cli()
        succeeded = True
    except (ValueError, OSError, MisconfigurationException) as error:
        if not processes.is_first():
            processes.wait_for_others()
        if os.environ.get("MOBILETAP_DEBUG"):
            raise
        text = str(error).strip()
        if text.startswith("Caught "):  # torch wraps a loader worker's error in its traceback
            text = text.splitlines()[-1].partition(": ")[2]
        sys.exit(f"error: {text}")
    except SIGTERMException:  # of Lightning, in evaluations; an exit without a code
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt) and stop.code == 1:  # as Lightning ends
            sys.exit(128 + signal.SIGINT)
        succeeded = stop.code in processes.STOPPED
        raise
    except Exception:
        processes.wait_for_others()
        raise
    finally:
        processes.leave_run(succeeded)
