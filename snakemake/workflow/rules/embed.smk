rule embed:
    input:
        **inputs_of_model(),
        fasta=fasta,
    output:
        embeddings=temp(f"{OUT}/shards/{{sample}}.{{shard}}.{FORMAT}"),
    log:
        f"{OUT}/logs/embed/{{sample}}.{{shard}}.log",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
        gpu=config["gpu"],
    params:
        shard=lambda wildcards: f"{wildcards.shard}/{SHARDS}",
        extra=config["embed_extra"],
    wrapper:
        "bio/ankh3/embed"


rule merge:
    input:
        parts=expand(
            f"{OUT}/shards/{{{{sample}}}}.{{shard}}.{FORMAT}",
            shard=range(1, SHARDS + 1),
        ),
    output:
        merged=f"{OUT}/{{sample}}.{FORMAT}",
    log:
        f"{OUT}/logs/merge/{{sample}}.log",
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    wrapper:
        "bio/ankh3/merge"
