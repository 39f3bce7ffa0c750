//
// Scatters each FASTA over shards, embeds the shards, and joins them into the very file that one run would have written
//

include { ANKH3_EMBED } from '../../../modules/nf-core/ankh3/embed/main'
include { ANKH3_MERGE } from '../../../modules/nf-core/ankh3/merge/main'

workflow FASTA_EMBED_ANKH3 {
    take:
    ch_fasta // channel: [ val(meta), path(fasta) ]
    model    // path, or [] for the small model inside ankh3
    shards   // val: how many tasks share a FASTA
    format   // val: npz, h5, safetensors, parquet, arrow, npy, tsv, jsonl

    main:
    def names = (1..shards).collect { number -> "${number}/${shards}" }
    ANKH3_EMBED(ch_fasta.combine(channel.fromList(names)), model, format)

    // Sorted, so that a resumed run asks for the same merge whatever shard came first.
    ch_sidecars = ANKH3_EMBED.out.sidecars.groupTuple(size: shards)
    ch_whole = ANKH3_EMBED.out.embeddings
        .groupTuple(size: shards)
        .join(ch_sidecars, remainder: true)
        .map { meta, parts, sidecars -> [meta, parts.sort { part -> part.name }, [sidecars ?: []].flatten().sort { file -> file.name }] }
    ANKH3_MERGE(ch_whole, format)

    emit:
    embeddings = ANKH3_MERGE.out.merged   // channel: [ val(meta), path(embeddings) ]
    sidecars   = ANKH3_MERGE.out.sidecars // channel: [ val(meta), path(sidecars) ]
}
