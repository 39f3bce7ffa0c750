rule predict_contacts:
    input:
        **inputs_of_model(),
        fasta=fasta,
    output:
        contacts=f"{OUT}/{{sample}}.rr",
    log:
        f"{OUT}/logs/contacts/{{sample}}.log",
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
        gpu=config["gpu"],
    params:
        extra=config["contacts_extra"],
    wrapper:
        "bio/ankh3/predict-contacts"
