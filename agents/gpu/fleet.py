# SPDX-License-Identifier: MIT
"""All NVIDIA GPUs of a host: which there are, what they are called, and what becomes of those that hang or are lost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agents.base.absent import NothingFound
from agents.base.files import read_once
from agents.base.isolate import Isolator
from agents.gpu.device import Answer, Gpu, Identity
from agents.gpu.nvml import Nvml
from agents.host import Roots
from bus.timestamp import NS_PER_S

PATIENT_S = 30.0
"""How long the driver may take to get ready, or to make a GPU ready, before that is a failure."""

SAMPLE_EVERY_S = 10.0
"""Seconds between samples of the PCIe traffic of one GPU, at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a GPU in a round: an answer, or an error; neither if it was not asked after an error.

    gpu: None if NVML does not list it any more.
    """

    gpu: Gpu | None = None
    answer: Answer | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What is asked in a round. now_ns: its time; samples: how many GPUs may sample their PCIe traffic."""

    now_ns: int
    patience_s: float
    slow: bool
    again: bool
    samples: int


class Fleet:
    """The GPUs, each asked in turn, such that none holds up the others.

    A GPU keeps its word while the agent runs, even if NVML numbers the others anew because it went. What is lost
    is tried again when `look` is called: NVML is closed and opened then, because handles of a lost GPU stay dead,
    but not while the GPU is still off the bus (that would only disturb the others), nor while a call hangs.

    Args:
        name: for the threads
        roots: where /proc and /sys are
        clock: monotonic seconds, for rates
    """

    def __init__(self, name: str, roots: Roots, clock: Callable[[], float]) -> None:
        self._roots = roots
        self._clock = clock
        self._nvml = Nvml()
        self._opener: Isolator[str, int | NothingFound] = Isolator(name=f"{name}: NVML")
        self._asker: Isolator[int, Answer] = Isolator(name=f"{name}: GPU")
        self._gpus: dict[int, Gpu] = {}
        self._words: dict[str, str] = {}
        self._identities: dict[str, Identity] = {}
        self._driver: tuple[str, ...] = ()
        self._opened_ns = 0
        self._waiting_ns = 0
        self._sampled_ns: dict[int, int] = {}
        self._sampling: frozenset[int] = frozenset()
        self._round = Round(now_ns=0, patience_s=0.0, slow=False, again=False, samples=0)

    @property
    def is_open(self) -> bool:
        """True while NVML is open."""
        return self._nvml.is_open

    @property
    def is_ready(self) -> bool:
        """True if there are GPUs to ask."""
        return bool(self._gpus)

    def close(self) -> bool:
        """Close NVML. Returns False if it cannot be closed, because a call of it hangs."""
        if self._asker.hung() or self._opener.hung():
            return False
        self._nvml.close()
        self._gpus = {}
        return True

    # -- the library -----------------------------------------------------------------------------------

    def look(self, now_ns: int, patience_s: float) -> None:
        """Open NVML, or see whether its GPUs have changed. Raises NothingFound."""
        driver = self._driver_state()
        anew = self.is_ready and not self._asker.hung() and (driver != self._driver or self._may_return())
        kept = {} if anew else self._gpus
        how = "reopen" if anew else "open"
        outcome = None if self._opener.hung() else self._opener.call_each(self._open, [how], patience_s).get(how)
        if isinstance(outcome, NothingFound):
            self._gpus = {}
            self._waiting_ns = 0
            raise NothingFound(str(outcome))
        if not isinstance(outcome, int):
            self._wait(now_ns)
            return
        self._waiting_ns = 0
        # With another count, others may be at the old indices; but what hangs keeps its place.
        if not kept or (len(kept) != outcome and not self._asker.hung()):
            self._driver, self._opened_ns = driver, now_ns
            self._gpus = {index: Gpu(self._nvml.library, index, self._clock) for index in range(outcome)}

    def _wait(self, now_ns: int) -> None:
        """NVML is not open yet, which may take it seconds. Raises NothingFound if it takes too long."""
        self._gpus = {}
        self._waiting_ns = self._waiting_ns or now_ns
        if now_ns - self._waiting_ns >= PATIENT_S * NS_PER_S:
            raise NothingFound("the NVIDIA driver does not answer: its library hangs")

    def _open(self, how: str) -> int | NothingFound:
        """In the opener's thread: how many GPUs there are, or why there is none."""
        try:
            return self._nvml.reopen() if how == "reopen" else self._nvml.open()
        except NothingFound as nothing:
            return nothing
        except Exception as error:  # noqa: BLE001  # an error in this thread would look as if the call hung
            return NothingFound(f"NVML cannot be used: {type(error).__name__}: {error}")

    def _driver_state(self) -> tuple[str, ...]:
        """The driver's version and its GPUs' addresses, as the kernel lists them; empty where it does not."""
        folder = self._roots.proc / "driver/nvidia"
        try:
            return (read_once(f"{folder}/version"), *sorted(path.name for path in (folder / "gpus").iterdir()))
        except OSError:
            return ()

    def _may_return(self) -> bool:
        """True if a GPU is lost but not known to be off the bus: it may be there once NVML is opened anew."""
        addresses = self._driver[1:]
        for index, gpu in self._gpus.items():
            if gpu.is_lost:
                pci = gpu.identity.pci if gpu.identity else ""
                if not pci and len(addresses) == len(self._gpus):
                    pci = addresses[index]  # both are in the order of addresses
                if not self._is_off_the_bus(pci):
                    return True
        return False

    def _is_off_the_bus(self, pci: str) -> bool:
        """True if the kernel knows it: what does not answer reads as ones. pci: like 00000000:3B:00.0."""
        try:
            with (self._roots.sys / "bus/pci/devices" / pci[-12:].lower() / "config").open("rb") as config:
                return config.read(2) == b"\xff\xff"
        except OSError:
            return False

    # -- the GPUs --------------------------------------------------------------------------------------

    def ask(self, this: Round, is_wanted: Callable[[str, Identity | None], bool]) -> dict[str, Report]:
        """Ask all GPUs that are wanted. Returns what became of each by its word; one that is late is left out."""
        if not self.is_ready:
            return {}
        gpus = {index: gpu for index, gpu in self._gpus.items() if self._may_be_wanted(gpu, is_wanted)}
        hung = self._asker.hung()
        self._round, self._sampling = this, self._samplers(gpus, this)
        asked = [index for index, gpu in gpus.items() if gpu.gone is None or this.again]
        answers = self._asker.call_each(self._ask, asked, this.patience_s)
        reports: dict[str, Report] = {}
        for index, gpu in sorted(gpus.items(), key=lambda item: item[1].identity is None):
            report = self._report(gpu, answers.get(index), hung=index in hung)
            word = self._word(gpu)
            if report is not None and word not in reports and is_wanted(word, gpu.identity):
                reports[word] = report
        present = {self._word(gpu) for gpu in self._gpus.values()}
        for word, identity in self._identities.items():
            if word not in present and is_wanted(word, identity):
                reports[word] = Report(error=LookupError("the NVIDIA driver does not list it any more"))
        return reports

    def _may_be_wanted(self, gpu: Gpu, is_wanted: Callable[[str, Identity | None], bool]) -> bool:
        """Also true if the word of a GPU that has not said who it is belongs to another, so it will get its own."""
        word = self._word(gpu)
        return is_wanted(word, gpu.identity) or (gpu.identity is None and word in self._identities)

    def _ask(self, index: int) -> Answer:
        """In the asker's thread."""
        this = self._round
        try:
            return self._gpus[index].ask(slow=this.slow, again=this.again, sample=index in self._sampling)
        except Exception as error:  # noqa: BLE001  # an error in this thread would look as if the call hung
            return Answer(gone=error)

    def _report(self, gpu: Gpu, answer: Answer | Exception | None, *, hung: bool) -> Report | None:
        """None if the GPU is only late: it hangs if it has not answered by the next round."""
        if isinstance(answer, Answer):
            return Report(gpu=gpu, answer=answer) if answer.gone is None else Report(gpu=gpu, error=answer.gone)
        if hung:
            getting_ready = self._round.now_ns - self._opened_ns < PATIENT_S * NS_PER_S and not gpu.is_open
            return None if getting_ready else Report(gpu=gpu, error=TimeoutError("its driver hangs"))
        return Report(gpu=gpu) if gpu.gone is not None else None

    def _word(self, gpu: Gpu) -> str:
        """``gpu0`` by its index, or what it was called before. A GPU that has not said who it is has no claim."""
        identity = gpu.identity
        if identity is None:
            return f"gpu{gpu.index}"
        if identity.uuid not in self._words:
            taken, number = set(self._words.values()), gpu.index
            while f"gpu{number}" in taken:
                number += 1
            self._words[identity.uuid] = f"gpu{number}"
        word = self._words[identity.uuid]
        self._identities[word] = identity
        return word

    def _samplers(self, gpus: Mapping[int, Gpu], this: Round) -> frozenset[int]:
        """Who samples PCIe traffic in a round: those whose last sample is the oldest."""
        waiting = [
            (self._sampled_ns.get(index, 0), index)
            for index, gpu in gpus.items()
            if gpu.wants_sample and not 0 <= this.now_ns - self._sampled_ns.get(index, 0) < SAMPLE_EVERY_S * NS_PER_S
        ]
        chosen = frozenset(index for _, index in sorted(waiting)[: this.samples])
        self._sampled_ns.update(dict.fromkeys(chosen, this.now_ns))
        return chosen
