//! Sequences of different lengths as one packed row of tokens, without padding: the form of every
//! batch.

/// A batch: the token ids of all segments, one after the other. Segment `i` is
/// `token_ids[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// The tokens of all segments, `(tokens,)`.
    pub token_ids: Vec<u32>,
    /// `segments + 1` ascending positions, from 0 to `token_ids.len()`.
    pub offsets: Vec<usize>,
}

impl Packed {
    /// Packs segments in the given order.
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

    /// The rows of each segment.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = std::ops::Range<usize>> + '_ {
        self.offsets.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// The number of tokens of the longest segment.
    pub fn longest(&self) -> usize {
        self.segments()
            .map(|segment| segment.len())
            .max()
            .unwrap_or(0)
    }
}
