//! Ragged sequences as one packed row of tokens: the form in which every batch travels. Never padded.

/// A batch: token ids of all segments laid end to end. Segment `i` is `token_ids[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// All segments' tokens, shape `(tokens,)`.
    pub token_ids: Vec<u32>,
    /// `segments + 1` rising positions; first 0, last `token_ids.len()`.
    pub offsets: Vec<usize>,
}

impl Packed {
    /// Packs segments in the order given.
    pub fn from_segments<'a>(segments: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut packed = Packed {
            token_ids: Vec::new(),
            offsets: vec![0],
        };
        for segment in segments {
            packed.token_ids.extend_from_slice(segment);
            packed.offsets.push(packed.token_ids.len());
        }
        packed
    }

    /// Number of segments.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// True without any segment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of each segment.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = std::ops::Range<usize>> + '_ {
        self.offsets.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// Tokens in the longest segment.
    pub fn longest(&self) -> usize {
        self.segments()
            .map(|segment| segment.len())
            .max()
            .unwrap_or(0)
    }
}
