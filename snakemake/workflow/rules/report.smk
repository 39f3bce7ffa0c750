rule report:
    input:
        results=[f"{OUT}/{{sample}}.{extension}" for extension in SHOWN],
    output:
        html=f"{OUT}/{{sample}}.html",
    log:
        f"{OUT}/logs/report/{{sample}}.log",
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=30,
    params:
        extra=lambda wildcards: f"--title 'Proteome: {wildcards.sample}'",
    wrapper:
        "bio/ankh3/report"
