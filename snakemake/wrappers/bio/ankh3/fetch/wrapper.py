__author__ = "The ankh3 authors"
__license__ = "MIT OR Apache-2.0"

import shlex

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
# log_fmt_shell does not quote the path.
log = snakemake.log_fmt_shell(stdout=False, stderr=True) and f"2> {shlex.quote(str(snakemake.log))}"

# Hard links: the weights are not copied, and the cache's links to its blobs become files.
shell(
    "cache=$(mktemp -d -- {snakemake.output.model:q}.XXXXXX) && trap 'rm -rf -- \"$cache\"' EXIT &&"
    " snapshot=$(HF_HUB_CACHE=$cache ankh3 fetch {extra} -- {snakemake.params.name:q} {log}) &&"
    ' cp -rlL -- "$snapshot" {snakemake.output.model:q}'
)
