// Names as words of the shell. Nextflow itself quotes few characters where it links inputs, and takes names of outputs for
// patterns: a path that would be run as a command, or not be found, is refused before that.
def quoted(names) {
    return [names].flatten().collect { name ->
        def whole = name instanceof java.nio.file.Path ? name.toRealPath().toString() : "${name}".toString()
        if (whole =~ /(^|\/)-|[;$*?\[\]{}#~^\\\p{Cntrl}]/) {
            error("Nextflow cannot work with a path in which a name begins with - or contains one of ; \$ * ? [ ] { } # ~ ^ \\ or a line break; rename ${whole}")
        }
        "'" + (name instanceof java.nio.file.Path ? name.name : whole).replace("'", "'\\''") + "'"
    }.join(' ')
}

process ANKH3_COMPLETE {
    tag "$meta.id"
    label 'process_medium'
    label 'process_gpu'

    conda "${task.accelerator ? "${moduleDir}/environment.gpu.yml" : "${moduleDir}/environment.yml"}"
    container "${task.accelerator ? 'ankh3:0.1.0-cuda' : 'ankh3:0.1.0'}"

    input:
    tuple val(meta), path(fasta), val(shard)
    path model

    output:
    tuple val(meta), path("${prefix}.fasta"), emit: fasta
    tuple val(meta), path("${prefix}.fasta.json"), emit: provenance
    tuple val("${task.process}"), val('ankh3'), eval("ankh3 --version | cut -d' ' -f2"), topic: versions, emit: versions_ankh3

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = (task.ext.prefix ?: "${meta.id}") + (shard ? ".${shard.replace('/', 'of')}" : '')
    def share = shard ? "--shard ${shard}" : ''
    def weights = model ? "--model ${quoted(model)}" : '--model nano'
    def device = !task.accelerator ? 'cpu' : (task.accelerator.request ?: 1) > 1 ? 'cuda:all' : 'cuda'
    // Killed for time or memory and tried again, a task goes on where it was: what it had finished lies in its former folder.
    def former = task.attempt > 1 ? task.previousTrace?.workdir : null
    def fetched = former ? "cp -r '${former}'/*.resume . 2>/dev/null || true" : '# first attempt'
    // Exit status 3: done, but for records left out as asked (--on-bad skip, --over skip); the log lists them.
    """
    ${fetched}
    ankh3 complete \\
        ${weights} ${share} \\
        --device ${device} --threads ${task.cpus} \\
        --resume --output ${quoted("${prefix}.fasta")} \\
        ${args} \\
        ${quoted(fasta)} || { status=\$?; [ \$status -eq 3 ] || exit \$status; }
    """

    stub:
    prefix = (task.ext.prefix ?: "${meta.id}") + (shard ? ".${shard.replace('/', 'of')}" : '')
    """
    touch ${quoted("${prefix}.fasta")} ${quoted("${prefix}.fasta.json")}
    """
}
