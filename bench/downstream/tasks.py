"""The jobs of the page: which command makes each head, from which tables, of which size. Standard library only."""

from dataclasses import dataclass, field

GB1_SPLITS = ("one_vs_rest", "two_vs_rest", "three_vs_rest", "low_vs_high")
# Training rows of the GB1 splits: few rows need more epochs to come to the same number of steps.
GB1_ROWS = {"one_vs_rest": 25, "two_vs_rest": 381, "three_vs_rest": 2691, "low_vs_high": 4580}


@dataclass(frozen=True)
class Size:
    """How much of the sets is used; none: all."""

    name: str
    ssp: int | None
    fluorescence: int | None
    fluorescence_judged: int | None
    gb1: int | None
    gb1_judged: int | None
    contacts: int | None
    contact_epochs: int
    epochs: int
    judged: int | None = None


SIZES = {
    "quick": Size("quick", 40, 60, 40, 60, 40, 8, 2, 2, judged=15),
    "medium": Size("medium", 1000, 2000, 1000, 2000, 1000, None, 20, 5),
    "full": Size("full", None, None, None, None, None, None, 20, 5),
}


@dataclass(frozen=True)
class Input:
    """What a head reads: a model with a prefix, or the residue alone."""

    name: str
    arguments: tuple[str, ...]
    model: str | None = None


@dataclass
class Job:
    """One head."""

    task: str
    input: Input
    command: list[str]
    note: str = ""
    extra: dict = field(default_factory=dict)


def limits(rows, judged):
    arguments = []
    if rows:
        arguments += ["--limit", str(rows)]
    if judged:
        arguments += ["--limit-judged", str(judged)]
    return arguments


def jobs(data, size, source, width, only):
    """All heads for one input."""
    model = source.model is not None
    features = list(source.arguments) + ([] if model else ["--feature-width", str(width)])
    made = []

    def add(task, command, note=""):
        if task.split(" ")[0] in only:
            made.append(Job(task, source, command, note))

    for task in ("ssp3", "ssp8"):
        tables = ["--train", f"{data}/ssp/netsurfp2_train.csv.gz", "--valid", f"{data}/ssp/netsurfp2_valid.csv.gz"]
        for test in ("casp12", "ts115", "casp14"):
            tables += ["--test", f"{data}/ssp/{test}.csv"]
        judged = size.judged or (None if size.ssp is None else 300)
        add(task, ["probe", "train", "--task", task, *tables, "--epochs", str(size.epochs), *limits(size.ssp, judged), *features])
    table = ["--train", f"{data}/fluorescence/gfp_tape.csv.gz", "--split-column", "split"]
    cut = limits(size.fluorescence, size.fluorescence_judged)
    add("fluorescence", ["probe", "train", "--task", "fluorescence", *table, "--epochs", str(size.epochs), *cut, *features])
    for split in GB1_SPLITS:
        rows = min(GB1_ROWS[split], size.gb1 or GB1_ROWS[split])
        epochs = size.epochs if size.name == "quick" else min(60, max(size.epochs, -(-8000 // rows)))
        table = ["--train", f"{data}/gb1/gb1_flip.csv.gz", "--split-column", split]
        cut = limits(size.gb1, size.gb1_judged)
        add(f"gb1 {split}", ["probe", "train", "--task", "gb1", *table, "--epochs", str(epochs), *cut, *features], f"{epochs} epochs")
    sets = {name: f"{data}/contacts/contacts_{name}.coords.jsonl.gz" for name in ("train", "valid", "test_ts50")}
    known = ["--structures", sets["train"], "--valid", sets["valid"], "--test", sets["test_ts50"]]
    cut = ["--limit", str(size.contacts)] if size.contacts else []
    learning = ["--epochs", str(size.contact_epochs), "--accumulation", "4", "--warmup-steps", "200"]
    add("contacts head", ["contacts", "fit", "--method", "head", *known, *learning, *cut, *features], " ".join(learning))
    if model:
        few = ["--limit", str(min(20, size.contacts or 20))]
        add("contacts attention", ["contacts", "fit", "--method", "attention", *known, *few, *features], "20 structures")
    return made
