//! Checksums of the official models' files, published by a project that is not the hub. They show
//! whether a mirror, or a file in the cache, is what others use.

use crate::checkpoint::checksum::Checksum;

/// The rows of the table, without its comments.
const TABLE: &str = include_str!("published.tsv");

/// A file of a revision.
struct Row {
    repo: &'static str,
    revision: &'static str,
    file: &'static str,
    checksum: Checksum,
}

fn rows() -> impl Iterator<Item = Row> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let mut columns = line.split('\t');
        Some(Row {
            repo: columns.next()?,
            revision: columns.next()?,
            file: columns.next()?,
            checksum: Checksum::from_etag(columns.next()?.split_once(':')?.1)?,
        })
    })
}

/// The revision of a repository whose checksums are known.
pub(super) fn revision(repo: &str) -> Option<&'static str> {
    let row = rows().find(|row| row.repo == repo)?;
    Some(row.revision)
}

/// The published checksum of a file.
pub(super) fn checksum(repo: &str, commit: &str, file: &str) -> Option<Checksum> {
    rows()
        .find(|row| (row.repo, row.revision, row.file) == (repo, commit, file))
        .map(|row| row.checksum)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::checkpoint::KNOWN_MODELS;

    #[test]
    fn each_line_is_a_file_of_a_known_model_and_each_model_has_one_revision() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(rows().count(), lines);
        let revisions: BTreeSet<_> = rows().map(|row| (row.repo, row.revision)).collect();
        let repos: BTreeSet<_> = rows().map(|row| row.repo).collect();
        assert_eq!((revisions.len(), repos.len()), (5, 5));
        for (repo, commit) in revisions {
            assert!(
                KNOWN_MODELS.iter().any(|model| model.repo == repo),
                "{repo}"
            );
            assert_eq!(revision(repo), Some(commit));
            let config = checksum(repo, commit, "config.json");
            assert!(matches!(config, Some(Checksum::GitBlob(_))), "{repo}");
            let mut weights =
                rows().filter(|row| row.repo == repo && row.file.starts_with("pytorch_model"));
            let large = |row: Row| matches!(row.checksum, Checksum::Sha256(_));
            assert!(
                weights.next().is_some_and(large) && weights.all(large),
                "{repo}"
            );
        }
        assert_eq!(
            checksum("ElnaggarLab/ankh3-large", "main", "config.json"),
            None
        );
    }
}
