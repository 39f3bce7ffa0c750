//
// Every module once, for `-stub`: each must make every output it promises
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
    def fasta = file("${projectDir}/../../examples/proteome.fasta", checkIfExists: true)
    def recipe = file("${projectDir}/../../workflows/family/recipe.toml", checkIfExists: true)
    def meta = [id: 'test']
    ch_shard = channel.of([meta, fasta, '1/2'])
    ch_fasta = channel.of([meta, fasta])

    ANKH3_FETCH(channel.of('ankh3-large'))
    ANKH3_EMBED(ch_shard, ANKH3_FETCH.out.model.first(), 'npz')
    ANKH3_MASKFILL(ch_shard, [])
    ANKH3_COMPLETE(ch_shard, [])
    ANKH3_SCORE(ch_shard, [], [])
    ANKH3_PREDICTCONTACTS(ch_fasta, [], 'rr')
    ANKH3_PROBE(ch_fasta, [], [])
    ANKH3_PRETRAIN(channel.of([meta, recipe, fasta, []]), [])
    ANKH3_MERGE(ANKH3_EMBED.out.embeddings.join(ANKH3_EMBED.out.sidecars), 'npz')
    ANKH3_REPORT(ch_fasta)
    channel.topic('versions').map { process, _tool, version -> "MADE ${process} ${version}" }.view()
}
