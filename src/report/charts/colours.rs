//! Palettes and colour scales of all charts, distinguishable for colour-blind readers.

use plotters::style::RGBColor;

/// Colours of curves: Okabe and Ito's palette without its yellow, which is too light for lines on
/// white.
pub(crate) const CURVES: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
/// Bars, dots and values above 0.
pub(crate) const BLUE: RGBColor = RGBColor(33, 102, 172);
/// Contacts of a structure and values below 0.
pub(crate) const RED: RGBColor = RGBColor(178, 24, 43);
/// Axes, frames and ticks.
pub(crate) const AXIS: RGBColor = RGBColor(90, 90, 90);
/// Grid lines.
pub(crate) const GRID: RGBColor = RGBColor(225, 225, 225);
/// Cells without a value.
pub(crate) const MISSING: RGBColor = RGBColor(225, 225, 225);

/// The stops of [`sequential`] from 0 to 1: white and five blues of `ColorBrewer`.
const BLUES: [[f64; 3]; 6] = [
    [255.0, 255.0, 255.0],
    [198.0, 219.0, 239.0],
    [158.0, 202.0, 225.0],
    [107.0, 174.0, 214.0],
    [33.0, 113.0, 181.0],
    [8.0, 48.0, 107.0],
];

/// White at 0, dark blue at 1; white also for values that are not finite.
pub(crate) fn sequential(share: f64) -> RGBColor {
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    let place = share * (BLUES.len() - 1) as f64;
    let below = (place as usize).min(BLUES.len() - 2);
    mixed(BLUES[below], BLUES[below + 1], place - below as f64)
}

/// Red at −1, white at 0, blue at 1.
pub(crate) fn diverging(value: f64) -> RGBColor {
    let RGBColor(r, g, b) = if value < 0.0 { RED } else { BLUE };
    let end = [r, g, b].map(f64::from);
    mixed(BLUES[0], end, value.abs().min(1.0))
}

/// White on dark colours, black on light ones.
pub(crate) fn ink_on(RGBColor(r, g, b): RGBColor) -> RGBColor {
    let brightness = 0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b);
    let level = if brightness < 140.0 { 255 } else { 0 };
    RGBColor(level, level, level)
}

/// `#rrggbb`.
pub(crate) fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn mixed(start: [f64; 3], end: [f64; 3], share: f64) -> RGBColor {
    let part = |at: usize| (start[at] + (end[at] - start[at]) * share).round() as u8;
    RGBColor(part(0), part(1), part(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_run_from_white_to_their_ends() {
        assert_eq!(sequential(0.0), RGBColor(255, 255, 255));
        assert_eq!(sequential(f64::NAN), sequential(0.0));
        assert_eq!(hex(sequential(0.2)), "#c6dbef");
        assert_eq!(sequential(2.0), RGBColor(8, 48, 107));
        assert_eq!(diverging(0.0), RGBColor(255, 255, 255));
        assert_eq!((diverging(-1.0), diverging(7.0)), (RED, BLUE));
    }

    #[test]
    fn letters_on_a_cell_can_be_read() {
        assert_eq!(ink_on(sequential(0.5)), RGBColor(0, 0, 0));
        assert_eq!(ink_on(sequential(0.9)), RGBColor(255, 255, 255));
    }
}
