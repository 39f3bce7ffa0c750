OUT = config["outdir"]
FORMAT = config["format"]
SHARDS = config["shards"]
# What the report shows.
SHOWN = [FORMAT, "rr"] if config["contacts"] else [FORMAT]


wildcard_constraints:
    sample="[A-Za-z0-9_-]+",
    shard="[0-9]+",


def fasta(wildcards):
    return config["samples"][wildcards.sample]


def inputs_of_model():
    """A checkpoint directory is an input; the small model inside ankh3 is none."""
    return (
        {} if config["model"] in ("nano", "ankh3-nano") else {"model": config["model"]}
    )
