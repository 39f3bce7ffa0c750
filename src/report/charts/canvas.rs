//! The canvas of charts: the embedded font, lettering, rectangles, and SVG or pixels as the result.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use thiserror::Error;

/// The name under which the embedded font is registered; a viewer of an SVG takes its own font of
/// that name.
pub(crate) const FONT: &str = "sans-serif";
/// Letters of a title or subtitle that are shown; an id may have any length.
const LONGEST: usize = 110;

/// An area to paint on.
pub(crate) type Area<B> = DrawingArea<B, Shift>;

/// A message of the drawing library.
#[derive(Debug, Error)]
#[error("drawing: {0}")]
pub struct DrawingError(String);

pub(crate) fn drawing(error: impl std::fmt::Display) -> DrawingError {
    DrawingError(error.to_string())
}

/// A chart.
pub trait Painting {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);

    /// Paints the chart, without the background.
    ///
    /// # Errors
    /// The errors of the drawing library.
    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError>;
}

/// A title and, in smaller letters below, how the shown values were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heading {
    title: String,
    subtitle: String,
}

impl Heading {
    /// Pixels that a heading takes at the top.
    pub(crate) const HEIGHT: i32 = 60;

    /// Control characters and everything beyond about 110 letters are left out.
    pub fn new(title: &str, subtitle: &str) -> Self {
        let [title, subtitle] = [title, subtitle].map(|text| shortened(text, LONGEST));
        Self { title, subtitle }
    }

    /// Pixels that the longer line takes, about.
    pub(crate) fn width(&self) -> i32 {
        let wide = |text: &str, size: usize| (text.chars().count() * size * 5 / 8) as i32;
        wide(&self.title, 16).max(wide(&self.subtitle, 12))
    }

    pub(crate) fn draw<B: DrawingBackend>(
        &self,
        area: &Area<B>,
        left: i32,
    ) -> Result<(), DrawingError> {
        TextPen::new(16).write(area, (left, 8), &self.title)?;
        TextPen::new(12)
            .coloured(super::colours::AXIS)
            .write(area, (left, 31), &self.subtitle)
    }
}

/// Printable letters, at most `longest`, with `…` where some are missing.
pub(crate) fn shortened(text: &str, longest: usize) -> String {
    let printable = || text.chars().filter(|letter| !letter.is_control());
    if printable().nth(longest).is_none() {
        return printable().collect();
    }
    printable().take(longest - 1).chain(['…']).collect()
}

/// Size, colour and alignment of letters.
#[derive(Clone, Copy)]
pub(crate) struct TextPen {
    size: u32,
    side: HPos,
    colour: RGBColor,
}

impl TextPen {
    /// Black, to the right of the point.
    pub(crate) fn new(size: u32) -> Self {
        Self {
            size,
            side: HPos::Left,
            colour: BLACK,
        }
    }

    pub(crate) fn centred(self) -> Self {
        let side = HPos::Center;
        Self { side, ..self }
    }

    /// To the left of the point.
    pub(crate) fn right_aligned(self) -> Self {
        let side = HPos::Right;
        Self { side, ..self }
    }

    pub(crate) fn coloured(self, colour: RGBColor) -> Self {
        Self { colour, ..self }
    }

    /// `at` is the upper edge of the letters.
    pub(crate) fn write<B: DrawingBackend>(
        self,
        area: &Area<B>,
        at: (i32, i32),
        text: &str,
    ) -> Result<(), DrawingError> {
        let style = TextStyle::from((FONT, self.size).into_font())
            .color(&self.colour)
            .pos(Pos::new(self.side, VPos::Top));
        area.draw_text(text, &style, at).map_err(drawing)
    }
}

/// Paints a filled rectangle.
pub(crate) fn rectangle<B: DrawingBackend>(
    area: &Area<B>,
    (x, y): (i32, i32),
    (width, height): (i32, i32),
    colour: RGBColor,
) -> Result<(), DrawingError> {
    // A bitmap's rectangle includes its far edge, a vector one does not.
    let corners = [(x, y), (x + width, y + height)];
    area.draw(&Rectangle::new(corners, colour.filled()))
        .map_err(drawing)
}

/// An SVG document on white.
pub(crate) fn svg(painting: &impl Painting) -> Result<String, DrawingError> {
    svg_with(painting, |area| area.fill(&WHITE).map_err(drawing))
}

/// An SVG element without background, for a page that has its own.
pub(crate) fn inline_svg(painting: &impl Painting) -> Result<String, DrawingError> {
    svg_with(painting, |_| Ok(()))
}

fn svg_with(
    painting: &impl Painting,
    prepare: impl FnOnce(&Area<SVGBackend<'_>>) -> Result<(), DrawingError>,
) -> Result<String, DrawingError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, painting.size()).into_drawing_area();
        prepare(&area)?;
        paint(&area, painting)?;
    }
    Ok(text)
}

/// Red, green and blue of each pixel, row by row.
pub(crate) fn pixels(painting: &impl Painting) -> Result<Vec<u8>, DrawingError> {
    let (width, height) = painting.size();
    let mut pixels = vec![255; 3 * width as usize * height as usize];
    let backend = BitMapBackend::with_buffer(&mut pixels, (width, height));
    paint(&backend.into_drawing_area(), painting)?;
    Ok(pixels)
}

fn paint<B: DrawingBackend>(area: &Area<B>, painting: &impl Painting) -> Result<(), DrawingError> {
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| drawing("the embedded font cannot be read"))?;
    painting.paint(area)?;
    area.present().map_err(drawing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_printable_and_short() {
        assert_eq!(shortened("a\u{1b}[1mb\0", 10), "a[1mb");
        assert_eq!(shortened("αβγδ", 4), "αβγδ");
        assert_eq!(shortened("αβγδε", 4), "αβγ…");
        assert!(Heading::new(&"x".repeat(1 << 20), "").width() < 1200);
    }
}
