"""Real sites by NVIDIA FLARE (extra ``nvflare``): its controller at the server, its executor at a site.

Both carry bytes and know nothing of a round. The controller gives `server.Server` a function that sends tasks and
collects replies; the executor hands a task to the process of the site (`site_process`). NVFlare authenticates both
sides by their certificates, and a site's number is the place of its name in the job.
"""

import queue
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedsparse_jax.communication import MessageError
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_json, write_json
from fedsparse_jax.deploy.handshake import read_hello
from fedsparse_jax.deploy.own_scans import own_config, server_experiment
from fedsparse_jax.deploy.server import Server
from fedsparse_jax.deploy.sides import RUNS, SERVER, own_settings, run_folder
from fedsparse_jax.deploy.site_process import JOIN, PLAY, WELCOME, SiteFailed, SiteProcess
from fedsparse_jax.runs import run_experiment

try:
    from nvflare.apis.controller_spec import Task
    from nvflare.apis.event_type import EventType
    from nvflare.apis.executor import Executor
    from nvflare.apis.fl_constant import ReturnCode
    from nvflare.apis.impl.controller import Controller
    from nvflare.apis.shareable import Shareable, make_reply
except ImportError:  # said by `require_nvflare`; the module can be read without
    Controller = Executor = object

EXPERIMENT_FILE = "experiment.json"  # in a job, beside NVFlare's own
OUTCOME_FILE = "fedsparse_jax.json"  # in the folder of a job that was run
_TASKS = {"join": JOIN, "welcome": WELCOME, "train": PLAY}
_BYTES = "bytes"  # key of what a task, or a reply, carries


class Stopped(Exception):
    """NVFlare ends the job."""


def require_nvflare() -> None:
    """Refuses to go on without NVFlare.

    Raises:
        UsageError: it is not installed.
    """
    if Controller is object:
        raise UsageError("Real sites need NVIDIA FLARE; install the extra by: pip install -e '.[nvflare]'.")


class RoundsController(Controller):
    """At the server: the loop of the simulation, whose clients are NVFlare's."""

    def __init__(self, sites: list[str], run: str, round_timeout: int = 3600, join_timeout: int = 3600):
        """A controller that NVFlare makes from the job.

        Args:
            sites: names of all sites, in the order of their numbers.
            run: name of the run folder.
            round_timeout: seconds that a site has for a round.
            join_timeout: seconds that a site has to read its scans.
        """
        super().__init__(task_check_period=0.1)
        self._names, self._run_name = list(sites), run
        self._round_timeout, self._join_timeout = round_timeout, join_timeout

    def start_controller(self, fl_ctx) -> None:
        """Nothing is to be done before the rounds."""

    def stop_controller(self, fl_ctx) -> None:
        """Nor after them."""

    def control_flow(self, abort_signal, fl_ctx) -> None:
        """Plays the rounds that the run folder does not hold yet; says how that ended in the folder of the job."""
        workspace, job = fl_ctx.get_engine().get_workspace(), fl_ctx.get_job_id()
        outcome = Path(workspace.get_run_dir(job)) / OUTCOME_FILE
        try:
            self._play(abort_signal, fl_ctx, workspace, job)
            problem = ""
        except UsageError as error:
            problem = str(error)
        except Stopped:
            problem = "Stopped. Finished rounds are safe, and the same job goes on from there."
        except Exception as error:
            write_json(outcome, {"problem": f"{type(error).__name__}: {error}"})
            raise
        write_json(outcome, {"problem": problem})
        if problem and not abort_signal.triggered:
            self.system_panic(problem, fl_ctx)

    def _play(self, abort_signal, fl_ctx, workspace, job: str) -> None:
        own, where = own_settings(Path(workspace.get_site_config_dir()), SERVER)
        place = run_folder(own, Path(workspace.get_root_dir()) / RUNS, self._run_name)
        shared = read_json(Path(workspace.get_app_config_dir(job)) / EXPERIMENT_FILE)
        say = self.logger.info

        def ask(round_: int, orders: Mapping[int, bytes]) -> Iterable[tuple[int, bytes]]:
            return self._ask("train", orders, self._round_timeout, abort_signal, fl_ctx)

        server = Server(server_experiment(own_config(shared, own, where)), ask, say)
        self._refuse_absent(fl_ctx)
        self._welcome(server, abort_signal, fl_ctx)
        run_experiment(server.experiment(), place, say)

    def _refuse_absent(self, fl_ctx) -> None:
        there = {client.name for client in fl_ctx.get_engine().get_clients()}
        if absent := [name for name in self._names if name not in there]:
            names = ", ".join(absent)
            raise UsageError(f"These sites are not connected: {names}; start them, and submit the job again.")

    def _welcome(self, server: Server, abort_signal, fl_ctx) -> None:
        """Lets every site introduce itself, and tells it whether it may take part."""
        orders, welcomes = dict.fromkeys(range(len(self._names)), b""), {}
        for site, hello in self._ask("join", orders, self._join_timeout, abort_signal, fl_ctx):
            try:
                said = read_hello(hello, server.num_sites)
            except MessageError as error:
                self.logger.info(f"{self._names[site]} is refused: {error}")
                continue
            if (said.site, said.name) != (site, self._names[site]):
                self.logger.info(f"{self._names[site]} is refused: it calls itself site {said.site} ({said.name}).")
                continue
            welcomes[site] = server.welcome(hello)
        for _ in self._ask("welcome", welcomes, self._join_timeout, abort_signal, fl_ctx):
            pass

    def _ask(
        self, task: str, payloads: Mapping[int, bytes], seconds: int, abort_signal, fl_ctx
    ) -> Iterator[tuple[int, bytes]]:
        """The replies, as they come; a site that fails, is gone, or takes too long has none."""
        replies = queue.SimpleQueue[tuple[int, Any]]()
        waiting = {}
        for site, payload in payloads.items():
            if self.communicator.get_client_disconnect_time(self._names[site]):
                self.logger.info(f"Site {site} ({self._names[site]}) is not connected.")
                continue
            data = Shareable()
            data[_BYTES] = payload
            received = lambda client_task, fl_ctx, site=site: replies.put((site, client_task.result))
            waiting[site] = Task(task, data, timeout=seconds, result_received_cb=received)
            self.send(waiting[site], fl_ctx, targets=[self._names[site]])
        end = time.monotonic() + seconds
        try:
            while waiting:
                if abort_signal.triggered:
                    raise Stopped
                site, result = self._next_reply(replies)
                if result is not None:
                    waiting.pop(site, None)
                    if result.get_return_code() == ReturnCode.OK and isinstance(result.get(_BYTES), bytes):
                        yield site, result[_BYTES]
                    else:
                        self.logger.info(f"Site {site} ({self._names[site]}) gives no answer; its console says why.")
                    continue
                late = time.monotonic() > end
                for site in [one for one in waiting if late or waiting[one].completion_status is not None]:
                    self.logger.info(f"Site {site} ({self._names[site]}) has not answered in time, or is gone.")
                    del waiting[site]
        finally:
            for one in waiting.values():
                self.cancel_task(one)

    @staticmethod
    def _next_reply(replies: queue.SimpleQueue) -> tuple[int, Any]:
        try:
            return replies.get(timeout=0.2)
        except queue.Empty:
            return -1, None


class SiteExecutor(Executor):
    """At a site: hands what the server sends to the site's own process."""

    def __init__(self, sites: list[str]):
        """An executor that NVFlare makes from the job.

        Args:
            sites: names of all sites, in the order of their numbers.
        """
        super().__init__()
        self._names = list(sites)
        self._process: SiteProcess | None = None

    def execute(self, task_name: str, shareable, fl_ctx, abort_signal):
        """The site's answer to a task; an error where it has none."""
        try:
            answer = self._site(fl_ctx).ask(_TASKS[task_name], bytes(shareable.get(_BYTES, b"")))
        except SiteFailed:  # its sentence, which is on the console, may be private, and NVFlare uploads logs
            self.log_error(fl_ctx, f"{fl_ctx.get_identity_name()} gives no answer; its console says why.")
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        except UsageError as error:
            self.log_error(fl_ctx, str(error))
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        reply = make_reply(ReturnCode.OK)
        reply[_BYTES] = answer
        return reply

    def handle_event(self, event_type: str, fl_ctx) -> None:
        """Ends the process with the job."""
        if event_type in (EventType.ABORT_TASK, EventType.END_RUN) and self._process:
            self._process.stop()

    def _site(self, fl_ctx) -> SiteProcess:
        if self._process is None:
            name, workspace = fl_ctx.get_identity_name(), fl_ctx.get_engine().get_workspace()
            own, where = own_settings(Path(workspace.get_site_config_dir()), name)
            shared = read_json(Path(workspace.get_app_config_dir(fl_ctx.get_job_id())) / EXPERIMENT_FILE)
            if name not in self._names:
                raise UsageError(f"{name} is none of the sites of this job ({', '.join(self._names)}).")
            self._process = SiteProcess(shared, own, where, self._names.index(name), name)
        return self._process
