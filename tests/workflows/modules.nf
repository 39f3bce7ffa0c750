//
// Every module once: with `-stub` each must make every output it promises, without it what its command makes
//

include { ANKH3_COMPLETE        } from '../../nextflow/modules/nf-core/ankh3/complete/main'
include { ANKH3_EMBED           } from '../../nextflow/modules/nf-core/ankh3/embed/main'
include { ANKH3_FETCH           } from '../../nextflow/modules/nf-core/ankh3/fetch/main'
include { ANKH3_MASKFILL        } from '../../nextflow/modules/nf-core/ankh3/maskfill/main'
include { ANKH3_MERGE           } from '../../nextflow/modules/nf-core/ankh3/merge/main'
include { ANKH3_PREDICTCONTACTS } from '../../nextflow/modules/nf-core/ankh3/predictcontacts/main'
include { ANKH3_PRETRAIN        } from '../../nextflow/modules/nf-core/ankh3/pretrain/main'
include { ANKH3_PROBE           } from '../../nextflow/modules/nf-core/ankh3/probe/main'
include { ANKH3_REPORT          } from '../../nextflow/modules/nf-core/ankh3/report/main'
include { ANKH3_SCORE           } from '../../nextflow/modules/nf-core/ankh3/score/main'

workflow {
    main:
    def fasta = file(params.input, checkIfExists: true)
    def recipe = file("${projectDir}/../../workflows/family/recipe.toml", checkIfExists: true)
    def family = file("${projectDir}/../../examples/family.fasta", checkIfExists: true)
    def meta = [id: 'test']
    ch_fasta = channel.of([meta, fasta])
    ch_shard = channel.of([meta, fasta, params.shard])

    ANKH3_FETCH(channel.of('ankh3-large'))
    ch_model = ANKH3_FETCH.out.model.first()
    ANKH3_EMBED(ch_shard, ch_model, 'tsv')
    ANKH3_MASKFILL(ch_shard, ch_model)
    ANKH3_COMPLETE(ch_shard, ch_model)
    ANKH3_SCORE(ch_shard, ch_model, [])
    ANKH3_PREDICTCONTACTS(ch_fasta, ch_model, 'rr')
    ANKH3_PROBE(ch_fasta, ch_model, file(params.head))
    ANKH3_PRETRAIN(channel.of([meta, recipe, family, []]), ch_model)
    ANKH3_MERGE(ANKH3_EMBED.out.embeddings.join(ANKH3_EMBED.out.sidecars), 'tsv')
    ANKH3_REPORT(ANKH3_MERGE.out.merged.join(ANKH3_MERGE.out.sidecars).map { its_meta, merged, sidecars -> [its_meta, [merged, sidecars].flatten()] })
    channel.topic('versions').map { process, _tool, version -> "MADE ${process} ${version}" }.view()
}
