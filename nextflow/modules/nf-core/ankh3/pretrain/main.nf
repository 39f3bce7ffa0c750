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

// A key of the recipe with files as its value, as a word of the shell.
def setting(key, files) {
    quoted(files)
    def paths = [files].flatten().collect { file -> '"' + file.name.replace('\\', '\\\\').replace('"', '\\"') + '"' }
    return "'" + "${key}=[${paths.join(', ')}]".replace("'", "'\\''") + "'"
}

process ANKH3_PRETRAIN {
    tag "$meta.id"
    label 'process_high'
    label 'process_gpu'

    conda "${task.accelerator ? "${moduleDir}/environment.gpu.yml" : "${moduleDir}/environment.yml"}"
    container "${task.accelerator ? 'ankh3:0.1.0-cuda' : 'ankh3:0.1.0'}"

    input:
    tuple val(meta), path(recipe), path(train, stageAs: 'train/*'), path(valid, stageAs: 'valid/*')
    path init

    output:
    tuple val(meta), path("${prefix}/model"), emit: model
    tuple val(meta), path("${prefix}/log.jsonl"), emit: log
    tuple val(meta), path("${prefix}/recipe.toml"), emit: recipe
    tuple val("${task.process}"), val('ankh3'), eval("ankh3 --version | cut -d' ' -f2"), topic: versions, emit: versions_ankh3

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def weights = init ? "--init ${quoted(init)}" : ''
    def device = !task.accelerator ? 'cpu' : (task.accelerator.request ?: 1) > 1 ? 'cuda:all' : 'cuda'
    def learnt = setting('data.train', train)
    def held_out = setting('data.valid', valid)
    // Killed for time or memory and tried again, a task goes on where it was: what it had finished lies in its former folder.
    def former = task.attempt > 1 ? task.previousTrace?.workdir : null
    def fetched = former ? "cp -r '${former}'/${quoted(prefix)} . 2>/dev/null || true" : '# first attempt'
    """
    ${fetched}
    ankh3 pretrain ${quoted(recipe)} \\
        --set ${learnt} --set ${held_out} \\
        ${weights} \\
        --device ${device} --threads ${task.cpus} \\
        --resume --output ${quoted("${prefix}")} \\
        ${args}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${quoted("${prefix}/model")}
    touch ${quoted("${prefix}/model/config.json")} ${quoted("${prefix}/log.jsonl")} ${quoted("${prefix}/recipe.toml")}
    """
}
