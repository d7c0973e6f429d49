"""Jobs under a real SLURM of one node are interrupted as SLURM and submitit do it, and must end with the same numbers.

`cd tests && python -m faults.slurm`, or with the names of cases behind it only these. Debian's packages are taken,
started as daemons of their own in a folder of their own: nothing under /etc is read or written.
"""

import importlib.util
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pamfn
from faults.outcome import Outcome

JOB = (
    *("+experiment=demo", "logger=csv", "resume_seconds=0", "threads=1"),
    *("recipe.branch.epochs=6", "recipe.fusion.epochs=12"),
)
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
LIMIT = 150.0
"""Seconds for one step of a case; about 20 are needed."""

ENDED = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")
Found = TypeVar("Found")
IN_BRANCH = "branch .* audio .* epoch 2/6"
IN_FUSION = "fusion .* epoch 4/12"
PREEMPTIBLE = "hydra.launcher.timeout_min=30"
ADVICE = re.compile(r"The `?srun`? command|srun.*(available|recommended)")
CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MailProg=/bin/true
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class SlurmError(Exception):
    """SLURM cannot be installed or does not start."""


class LateError(Exception):
    """Something did not happen within its time."""


def install() -> None:
    """Installs Debian's packages if a program is absent.

    Raises:
        SlurmError: when that cannot be done here.
    """
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if not absent:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SlurmError(f"{', '.join(absent)} not installed, and only root can, with apt-get")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", "slurm-wlm", "munge"]):
        try:
            done = subprocess.run(["apt-get", *words], env=quiet, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired as error:
            raise SlurmError(f"apt-get {words[0]} took over 5 minutes") from error
        if done.returncode != 0:
            raise SlurmError(f"apt-get {words[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")


def wait_for(what: str, found: Callable[[], Found | None], seconds: float = LIMIT) -> Found:
    """Asks until there is an answer that is true.

    Raises:
        LateError: when there is none in time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = found()
        if answer:
            return answer
        time.sleep(0.2)
    raise LateError(f"no {what} after {seconds:.0f} s")


def user_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def free_ports(number: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def clean_environment() -> dict[str, str]:
    """This process's environment without what another SLURM, or the user's own settings, would say to the jobs."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SUBMITIT", "PAMFN", "WANDB"))}
    source = str(Path(pamfn.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    return ours | {"PATH": PATH, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Slurm:
    """A running SLURM: its commands are told of it by their environment."""

    environment: Mapping[str, str]

    def ask(self, *words: str) -> str:
        """What a command prints, its errors too."""
        done = subprocess.run(
            words, env=dict(self.environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        return done.stdout.strip()

    def submit(self, script: Path, *options: str) -> str:
        """The id of a batch job started in the script's folder; its output goes on in one file over all its starts."""
        log = script.with_suffix(".log")
        words = ["sbatch", "--parsable", "--ntasks=1", "--open-mode=append", f"--output={log}"]
        answer = self.ask(*words, f"--chdir={script.parent}", *options, str(script))
        if not answer.isdigit():
            raise LateError(f"sbatch: {answer}")
        return answer

    def ended(self, job: str) -> str:
        """The state that a job ends in."""
        return wait_for(f"end of job {job}", lambda: self.has_ended(job))

    def has_ended(self, job: str) -> str | None:
        state = self.ask("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")
        return state if state in ENDED else None

    def cancel_all(self) -> None:
        """Cancels every job; waits until their processes are gone."""
        try:
            self.ask("scancel", "--user", user_name())
            wait_for("empty queue", lambda: self.ask("squeue", "-h", "-o", "%i") == "", 30)
        except (LateError, subprocess.TimeoutExpired) as error:
            print(f"SLURM: {error}", file=sys.stderr)


@contextmanager
def running_slurm() -> Iterator[Slurm]:
    """SLURM on this machine, stopped at the end with all its jobs.

    Raises:
        SlurmError: when it does not start.
    """
    install()
    with TemporaryDirectory(prefix="slurm-") as name, ExitStack() as stack:
        folder = Path(name)
        for inner in ("state", "spool"):
            (folder / inner).mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        host = socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(CONF.format(host=host, user=user_name(), folder=folder, ports=free_ports(2)))
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        slurm = Slurm(clean_environment() | {"SLURM_CONF": str(folder / "slurm.conf")})
        files = [f"--{what}={folder}/munge.{what.partition('-')[0]}" for what in ("socket", "pid-file", "log-file")]
        munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--seed-file={folder}/munge.seed", *files]
        stack.enter_context(daemon(munged, slurm.environment, folder))
        try:
            wait_for("socket of munged", (folder / "munge.socket").exists, 30)
            stack.enter_context(daemon(["slurmctld", "-D", "-i"], slurm.environment, folder))
            stack.enter_context(daemon(["slurmd", "-D"], slurm.environment, folder))
            wait_for("idle node", lambda: slurm.ask("sinfo", "-h", "-o", "%T") == "idle", 60)
        except (LateError, subprocess.TimeoutExpired) as error:
            told = [f"{f.name}: {f.read_text(errors='replace')[-300:]}" for f in sorted(folder.glob("*.out"))]
            raise SlurmError(f"{error}; {' '.join(told)}") from error
        stack.callback(slurm.cancel_all)
        yield slurm


@contextmanager
def daemon(words: list[str], environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    """A program in the foreground of a process of its own, ended with the block."""
    with (folder / f"{words[0]}.out").open("wb") as said:
        process = subprocess.Popen(
            words, env=dict(environment), stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Place:
    """A folder with a job's script, logs, data and results."""

    folder: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def words(self, *more: str) -> list[str]:
        """The command of the job."""
        paths = [f"paths.output_dir={self.runs}", f"paths.data_dir={self.folder / 'data'}"]
        return [sys.executable, "-m", "pamfn.train", *JOB, *paths, *more]

    def script(self, text: str = "{command}") -> Path:
        """A batch script around the command of the job."""
        file = self.folder / "job.sh"
        file.write_text(f"#!/bin/bash\n{text.format(command=shlex.join(self.words('seed=0')))}\n")
        return file

    def logs(self, number: int | None = None) -> list[Path]:
        """What the jobs printed, or the job of one number in submitit's sweep."""
        if number is not None:
            return sorted(self.runs.glob(f"sweeps/*/.submitit/*_{number}/*_log.*"))
        return [*self.folder.glob("*.log"), *self.runs.glob("sweeps/*/.submitit/*/*_log.*")]

    def said(self, number: int | None = None) -> str:
        return "".join(file.read_text(errors="replace") for file in self.logs(number))

    def reaches(self, pattern: str, number: int | None = None) -> None:
        """Waits until a job has printed such a line."""
        wait_for(f"line like {pattern!r} in {self.folder.name}", lambda: re.search(pattern, self.said(number)))


def files_of(runs: Path) -> set[str]:
    """All files but what submitit and Hydra keep about a sweep."""
    files = (file.relative_to(runs) for file in runs.rglob("*") if file.is_file())
    return {str(file) for file in files if file.parts[0] != "sweeps"}


def numbers(run: Path) -> tuple[bytes, str]:
    """What a run's numbers are: its predictions as they are on disk, its metrics."""
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    return (run / "predictions.csv").read_bytes(), json.dumps(metrics, sort_keys=True)


@dataclass(frozen=True)
class Campaign:
    """What every case is given: SLURM, the undisturbed results of each seed, where to work, where to count.

    other: a checkpoint as Lightning writes them, of another seed.
    """

    slurm: Slurm
    folder: Path
    right: Mapping[int, Path]
    other: bytes
    outcome: Outcome

    def place(self, name: str) -> Place:
        folder = self.folder / re.sub(r"\W+", "-", name)
        folder.mkdir(parents=True)
        return Place(folder)

    def requeued(self, name: str, place: Place, text: str, moments: Sequence[str]) -> str:
        """The state that a job ends in which is requeued when it has printed such lines."""
        job = self.slurm.submit(place.script(text), "--requeue")
        for moment in moments:
            wait_for(f"line like {moment!r}", lambda m=moment: re.search(m, place.said()) or self.slurm.has_ended(job))
            refused = self.slurm.ask("scontrol", "requeue", job)
            if refused:
                self.outcome.notes.append(f"{name}: scontrol requeue: {refused}")
        return self.slurm.ended(job)

    def sweep(self, place: Place, *settings: str, interrupt: Callable[[Place], None] | None = None) -> int:
        """The exit status of a sweep of both seeds by submitit, a job of which is interrupted."""
        launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", *settings)
        with (place.folder / "sweep.log").open("ab") as said:
            process = subprocess.Popen(
                place.words(*launcher, "seed=0,1", "-m"),
                **{"env": dict(self.slurm.environment), "cwd": place.folder, "stdout": said, "stderr": said},
            )
        try:
            if interrupt is not None:
                interrupt(place)
            return process.wait(LIMIT)
        except subprocess.TimeoutExpired as error:
            raise LateError(f"no end of the sweep after {LIMIT:.0f} s") from error
        finally:
            process.kill()
            process.wait()

    def signals(self, number: int, *names: str) -> Callable[[Place], None]:
        """Sends signals, a second apart, to the job of that number in a sweep, in the middle of its training."""

        def interrupt(place: Place) -> None:
            place.reaches(IN_FUSION, number)
            job = place.logs(number)[0].parent.name
            for position, name in enumerate(names):
                time.sleep(min(position, 1))
                refused = self.slurm.ask("scancel", f"--signal={name}", job)
                if refused:
                    self.outcome.notes.append(f"{place.folder.name}: scancel --signal={name}: {refused}")

        return interrupt

    def judge(
        self,
        place: Place,
        *,
        seeds: Sequence[int] = (0,),
        strays: Mapping[Path, bytes] | None = None,
        goes_on: bool = True,
    ) -> str:
        """Counts what a case left, and says it in a line.

        strays: files that were put there. goes_on: whether a training had been saved before it was interrupted.
        """
        said, expected, lost, wrong, compared = place.said(), set[str](), 0, 0, 0
        for seed in seeds:
            expected |= files_of(self.right[seed])
            for result in self.right[seed].glob("*/*/result.json"):
                run = place.runs / result.parent.relative_to(self.right[seed])
                if not (run / "result.json").exists():
                    lost += 1
                    continue
                compared += 1
                wrong += numbers(run) != numbers(result.parent)
        untouched = {file for file, content in (strays or {}).items() if file.read_bytes() == content}
        checkpoints = {file for file in place.folder.rglob("hpc_ckpt*") if file not in untouched}
        left = {place.runs / file for file in files_of(place.runs) - expected} - untouched | checkpoints
        went_on, advised = said.count("going on from"), len(ADVICE.findall(said))
        self.outcome.lost += lost + (went_on < goes_on)
        self.outcome.wrong += wrong + advised
        self.outcome.left_behind += len(left)
        self.outcome.notes += [f"left behind: {file.relative_to(self.folder)}" for file in sorted(left)]
        self.outcome.notes += [f"{place.folder.name}: nothing went on from where it was"] * (went_on < goes_on)
        self.outcome.notes += [f"{place.folder.name}: Lightning advised srun"] * bool(advised)
        return (
            f"{compared} runs compared, {wrong} wrong, {lost} missing, {went_on} went on, {len(left)} files left, "
            f"{len(checkpoints)} hpc_ckpt, srun advised {advised} times"
        )


def requeued(campaign: Campaign) -> str:
    """A batch job is requeued in its first and in its second stage."""
    place = campaign.place("requeued")
    state = campaign.requeued("requeued", place, "{command}", [IN_BRANCH, IN_FUSION])
    return f"{state}, {campaign.judge(place)}"


def requeued_step(campaign: Campaign) -> str:
    """So is a batch job that runs by srun, which passes signals on; a file that is no checkpoint lies there."""
    return strayed(campaign, "requeued step, garbage for a checkpoint", b"no checkpoint")


def requeued_beside_other(campaign: Campaign) -> str:
    """The same, and the file is the checkpoint of another seed."""
    return strayed(campaign, "requeued step, a checkpoint of another seed", campaign.other)


def strayed(campaign: Campaign, name: str, content: bytes) -> str:
    place = campaign.place(name)
    strays = {folder / "hpc_ckpt_1.ckpt": content for folder in (place.folder, place.runs)}
    for file in strays:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    state = campaign.requeued(name, place, "srun {command}", [IN_FUSION])
    return f"{state}, {campaign.judge(place, strays=strays)}"


def limited(campaign: Campaign) -> str:
    """A job gets SIGUSR1 before its time is over, whatever it is at, and is submitted again."""
    place = campaign.place("signalled before the time limit")
    options = ("--time=1", "--signal=USR1@45")
    first = campaign.slurm.ended(campaign.slurm.submit(place.script("srun {command}"), "--requeue", *options))
    second = campaign.slurm.ended(campaign.slurm.submit(place.script("srun {command}"), "--requeue"))
    return f"{first} then {second}, {campaign.judge(place, goes_on=False)}"


def signalled(campaign: Campaign) -> str:
    """A job gets SIGUSR1 in the middle of its training, and is submitted again."""
    place = campaign.place("signalled")
    job = campaign.slurm.submit(place.script("srun {command}"), "--requeue")
    place.reaches(IN_FUSION)
    campaign.slurm.ask("scancel", "--signal=USR1", job)
    first = campaign.slurm.ended(job)
    second = campaign.slurm.ended(campaign.slurm.submit(place.script("srun {command}"), "--requeue"))
    return f"{first} then {second}, {campaign.judge(place)}"


def requeues_itself(campaign: Campaign) -> str:
    """The script of a job gets SIGUSR1, as before a time limit with `--signal=B:USR1@120`, and requeues it."""
    place = campaign.place("script that requeues itself")
    text = "trap 'scontrol requeue $SLURM_JOB_ID' USR1\n{command} &\nwait"
    job = campaign.slurm.submit(place.script(text), "--requeue")
    place.reaches(IN_FUSION)
    campaign.slurm.ask("scancel", "--batch", "--signal=USR1", job)
    return f"{campaign.slurm.ended(job)}, {campaign.judge(place)}"


def preempted(campaign: Campaign) -> str:
    """A job of a sweep gets submitit's signal: it requeues itself. The other job is left alone."""
    place = campaign.place("sweep, a job pre-empted")
    status = campaign.sweep(place, PREEMPTIBLE, interrupt=campaign.signals(0, "USR2"))
    return f"exit status {status}, {campaign.judge(place, seeds=(0, 1))}"


def preempted_after_sigterm(campaign: Campaign) -> str:
    """The other job gets it too, but after a SIGTERM, as submitit says that clusters pre-empt."""
    place = campaign.place("sweep, a job pre-empted after SIGTERM")
    status = campaign.sweep(place, PREEMPTIBLE, interrupt=campaign.signals(1, "TERM", "USR2"))
    return f"exit status {status}, {campaign.judge(place, seeds=(0, 1))}"


def out_of_time(campaign: Campaign) -> str:
    """The time of a sweep's job is over and submitit may not requeue it: it is told as failed; the same sweep ends it.

    To submitit every time is over that is signalled in a job of less than ten minutes.
    """
    place = campaign.place("sweep, a job out of time")
    first = campaign.sweep(place, "hydra.launcher.timeout_min=5", interrupt=campaign.signals(0, "USR2"))
    if first != 1 or "1 job of the sweep failed" not in place.said():
        campaign.outcome.lost += 1
        campaign.outcome.notes.append(f"{place.folder.name}: not told as failed (exit status {first})")
    second = campaign.sweep(place, PREEMPTIBLE)
    return f"exit status {first} then {second}, {campaign.judge(place, seeds=(0, 1))}"


BATCH = (requeued, requeued_step, requeued_beside_other, limited, signalled, requeues_itself)
SWEEPS = (preempted, preempted_after_sigterm, out_of_time)


def undisturbed(folder: Path) -> tuple[dict[int, Path], bytes]:
    """The results of each seed without SLURM, and a checkpoint out of the middle of the second seed's training.

    Raises:
        LateError: when they do not end in time.
    """
    places, environment = [Place(folder / f"seed{seed}") for seed in (0, 1)], clean_environment()
    with ExitStack() as stack:
        processes = []
        for seed, place in enumerate(places):
            place.folder.mkdir(parents=True)
            said = stack.enter_context((place.folder / "job.log").open("wb"))
            process = subprocess.Popen(
                place.words(f"seed={seed}"), env=environment, cwd=place.folder, stdout=said, stderr=said
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        places[1].reaches(IN_FUSION)
        (saved,) = places[1].runs.glob("fusion/*/resume.ckpt")
        other = saved.read_bytes()
        for process, place in zip(processes, places, strict=True):
            try:
                status = process.wait(LIMIT)
            except subprocess.TimeoutExpired as error:
                raise LateError("the undisturbed runs take too long") from error
            if status != 0:
                raise LateError(f"an undisturbed run fails: {place.said()[-500:]}")
    return {seed: place.runs for seed, place in enumerate(places)}, other


def campaign(folder: Path, names: Sequence[str] = ()) -> Outcome:
    """Runs every case, or those named, in a new folder below `folder`, a line each; none where there is no SLURM."""
    outcome = Outcome()
    try:
        with running_slurm() as slurm, TemporaryDirectory(prefix="slurm-", dir=folder) as name:
            right, other = undisturbed(Path(name))
            given = Campaign(slurm, Path(name), right, other, outcome)
            sweeps = SWEEPS if importlib.util.find_spec("submitit") else ()
            outcome.notes += [] if sweeps else ["SLURM: no sweeps: hydra-submitit-launcher is not installed"]
            for case in (*BATCH, *sweeps):
                if not names or case.__name__ in names:
                    trial(case, given)
    except (SlurmError, LateError) as error:
        outcome.notes.append(f"SLURM: not run: {error}")
    return outcome


def trial(case: Callable[[Campaign], str], given: Campaign) -> None:
    """Runs one case; what does not end in time is lost."""
    began = time.monotonic()
    given.outcome.tried += 1
    try:
        said = case(given)
    except (LateError, subprocess.TimeoutExpired) as error:
        given.outcome.lost += 1
        said = f"lost: {error}"
        given.outcome.notes.append(f"{case.__name__}: {error}")
        given.slurm.cancel_all()
    print(f"SLURM {case.__name__}: {said} ({time.monotonic() - began:.0f} s)", flush=True)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the daemons are stopped then too
    with TemporaryDirectory() as folder:
        outcome = campaign(Path(folder), sys.argv[1:])
    print(f"tried {outcome.tried}, lost {outcome.lost}, left behind {outcome.left_behind}, wrong {outcome.wrong}")
    print("\n".join(outcome.notes), end="\n" * bool(outcome.notes))
    if outcome.lost or outcome.left_behind or outcome.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
