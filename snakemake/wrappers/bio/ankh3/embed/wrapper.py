__author__ = "The ankh3 authors"
__license__ = "MIT OR Apache-2.0"

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)

# A checkpoint directory, shared and read only; without one, the small model inside ankh3.
model = snakemake.input.get("model", "nano")

# Such as 2/8: every 8th protein from the 2nd on.
shard = snakemake.params.get("shard", "")
shard = f"--shard {shard}" if shard else ""

# A job that asked for a GPU uses it, and fails where there is none.
device = "cuda" if snakemake.resources.get("gpu", 0) else "cpu"

# Exit status 3: done, but for records left out as asked (--on-bad skip, --over skip); the log lists them.
shell(
    "ankh3 embed --model {model:q} {shard} --device {device} --threads {snakemake.threads}"
    " --resume --output {snakemake.output.embeddings:q} {extra} {snakemake.input.fasta:q} {log} || [ $? -eq 3 ]"
)
