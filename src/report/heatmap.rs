//! The scan of a protein as a picture: a column a residue, a row for each of the 20 standard residues, red where a substitution is worse than the
//! protein's own residue, blue where it is better.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::picture::{Area, FONT, Painting, PictureError, drawing};

/// Rows, from the top: like residues lie side by side.
const ROWS: &[u8; 20] = b"GAVLIMCFYWHKRQNEDSTP";
/// Pixels a row.
const ROW: i32 = 16;
const LEFT: i32 = 50;
const TOP: i32 = 40;
const RIGHT: i32 = 110;
const BOTTOM: i32 = 45;

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    title: String,
    residues: Vec<u8>,
    /// 20 values a residue in the order of [`ROWS`]; NaN where there is none.
    values: Vec<[f64; 20]>,
}

impl HeatMap {
    /// `changes`: position (from 1), the residue put there, and the score.
    pub fn new(
        title: &str,
        residues: &[u8],
        changes: impl IntoIterator<Item = (usize, u8, f64)>,
    ) -> Self {
        let mut values = vec![[f64::NAN; 20]; residues.len()];
        for (position, mutant, score) in changes {
            let row = ROWS.iter().position(|row| *row == mutant);
            if let Some((column, row)) = values.get_mut(position - 1).zip(row) {
                column[row] = score;
            }
        }
        Self {
            title: title.to_owned(),
            residues: residues.to_vec(),
            values,
        }
    }

    /// The largest magnitude, which has the strongest colour.
    fn extreme(&self) -> f64 {
        let finite = self
            .values
            .iter()
            .flatten()
            .filter(|value| value.is_finite());
        let extreme = finite.fold(0.0, |extreme: f64, value| extreme.max(value.abs()));
        if extreme > 0.0 { extreme } else { 1.0 }
    }

    /// Pixels a column: wide ones for a short protein, never less than one.
    fn column_width(&self) -> i32 {
        (1400 / self.residues.len().max(1)).clamp(1, 16) as i32
    }
}

impl Painting for HeatMap {
    fn size(&self) -> (u32, u32) {
        let columns = self.column_width() * self.residues.len() as i32;
        let height = TOP + ROW * ROWS.len() as i32 + BOTTOM;
        ((LEFT + columns.max(260) + RIGHT) as u32, height as u32)
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), PictureError> {
        write(area, &self.title, (LEFT, 8), 16, HPos::Left)?;
        cells(area, self)?;
        labels(area, self)?;
        legend(area, self)
    }
}

fn cells<B: DrawingBackend>(area: &Area<B>, map: &HeatMap) -> Result<(), PictureError> {
    let (width, extreme) = (map.column_width(), map.extreme());
    for (column, (residue, values)) in map.residues.iter().zip(&map.values).enumerate() {
        for (row, (letter, value)) in ROWS.iter().zip(values).enumerate() {
            let colour = match value {
                _ if letter == residue => RGBColor(60, 60, 60),
                value if value.is_nan() => RGBColor(225, 225, 225),
                value => shade(value / extreme),
            };
            let corner = (LEFT + width * column as i32, TOP + ROW * row as i32);
            rectangle(area, corner, (width, ROW), colour)?;
        }
    }
    Ok(())
}

fn labels<B: DrawingBackend>(area: &Area<B>, map: &HeatMap) -> Result<(), PictureError> {
    for (row, letter) in ROWS.iter().enumerate() {
        let at = (LEFT - 12, TOP + ROW * row as i32 + 2);
        write(area, &char::from(*letter).to_string(), at, 12, HPos::Center)?;
    }
    let bottom = TOP + ROW * ROWS.len() as i32;
    let width = map.column_width();
    let every = tick_step(width);
    for position in (1..=map.residues.len()).filter(|p| *p == 1 || p % every == 0) {
        let x = LEFT + width * (position as i32 - 1) + width / 2;
        rectangle(area, (x, bottom), (1, 4), BLACK)?;
        write(
            area,
            &position.to_string(),
            (x, bottom + 6),
            11,
            HPos::Center,
        )?;
    }
    write(area, "position", (LEFT, bottom + 24), 12, HPos::Left)
}

/// The colours and what they stand for, at the right.
fn legend<B: DrawingBackend>(area: &Area<B>, map: &HeatMap) -> Result<(), PictureError> {
    let (width, _) = map.size();
    let (x, height) = (width as i32 - RIGHT + 24, ROW * ROWS.len() as i32);
    for y in 0..height {
        let value = 1.0 - 2.0 * f64::from(y) / f64::from(height - 1);
        rectangle(area, (x, TOP + y), (14, 1), shade(value))?;
    }
    let extreme = map.extreme();
    for (share, value) in [(0.0, extreme), (0.5, 0.0), (1.0, -extreme)] {
        let y = TOP + (f64::from(height) * share) as i32 - 6;
        write(area, &format!("{value:.1}"), (x + 20, y), 11, HPos::Left)?;
    }
    write(area, "score", (x, TOP - 20), 12, HPos::Left)
}

/// Positions between two labels, so that labels do not meet.
fn tick_step(column_width: i32) -> usize {
    let fits = |step: &usize| *step as i32 * column_width >= 40;
    [5, 10, 20, 50, 100, 200, 500, 1000]
        .into_iter()
        .find(fits)
        .unwrap_or(2000)
}

/// White at 0, red at -1, blue at 1: told apart by colour-blind eyes too.
fn shade(value: f64) -> RGBColor {
    let end = if value < 0.0 {
        [178.0, 24.0, 43.0]
    } else {
        [33.0, 102.0, 172.0]
    };
    let strength = value.abs().min(1.0);
    let [r, g, b] = end.map(|end| (255.0 + (end - 255.0) * strength).round() as u8);
    RGBColor(r, g, b)
}

fn rectangle<B: DrawingBackend>(
    area: &Area<B>,
    (x, y): (i32, i32),
    (width, height): (i32, i32),
    colour: RGBColor,
) -> Result<(), PictureError> {
    // A bitmap's rectangle holds its far edge, a vector one's does not.
    let corners = [(x, y), (x + width, y + height)];
    area.draw(&Rectangle::new(corners, colour.filled()))
        .map_err(drawing)
}

fn write<B: DrawingBackend>(
    area: &Area<B>,
    text: &str,
    at: (i32, i32),
    size: u32,
    side: HPos,
) -> Result<(), PictureError> {
    let style = TextStyle::from((FONT, size).into_font())
        .color(&BLACK)
        .pos(Pos::new(side, VPos::Top));
    area.draw_text(text, &style, at).map_err(drawing)
}

#[cfg(test)]
mod tests {
    use super::super::picture::{Picture, draw, svg};
    use super::*;

    fn map() -> HeatMap {
        let changes = [(1, b'A', -2.0), (1, b'G', 1.0), (3, b'W', f64::NAN)];
        HeatMap::new("P1 & co", b"MKX", changes)
    }

    #[test]
    fn the_strongest_colour_is_the_largest_magnitude() {
        let map = map();
        assert_eq!(map.extreme(), 2.0);
        assert_eq!(map.values[0][1], -2.0);
        assert_eq!(shade(-1.0), RGBColor(178, 24, 43));
        assert_eq!(shade(0.0), RGBColor(255, 255, 255));
        assert_eq!(HeatMap::new("", b"MK", []).extreme(), 1.0);
    }

    #[test]
    fn a_vector_picture_holds_a_cell_a_residue_and_words() {
        let svg = svg(&map()).unwrap();
        assert!(
            svg.contains("P1 &amp; co") && svg.contains("position"),
            "{svg}"
        );
        assert!(svg.matches("<rect").count() >= 60);
        // -2 of at most 2 at A1, its own residue M in dark grey.
        assert!(svg.contains("#B2182B") && svg.contains("#3C3C3C"), "{svg}");
    }

    #[test]
    fn a_bitmap_holds_colours_and_letters() {
        let folder = tempfile::tempdir().unwrap();
        let picture = Picture::of_path(&folder.path().join("heat.PNG")).unwrap();
        draw(&picture, &map()).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&picture.path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), map().size());
        let at = |x: i32, y: i32| {
            let start = 3 * (y as u32 * info.width + x as u32) as usize;
            [pixels[start], pixels[start + 1], pixels[start + 2]]
        };
        let width = map().column_width();
        assert_eq!(at(LEFT + width / 2, TOP + ROW + ROW / 2), [178, 24, 43]);
        let dark = |(x, y): (i32, i32)| at(x, y).iter().all(|part| *part < 128);
        let title = (LEFT..LEFT + 80).flat_map(|x| (8..28).map(move |y| (x, y)));
        assert!(
            title.filter(|at| dark(*at)).count() > 20,
            "no title was drawn"
        );
    }
}
