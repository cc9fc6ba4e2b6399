//! Curves as an SVG: panels side by side, each with its axes. Colours are readable on white and on black.

use std::fmt::Write;

/// Width and height of a panel, and the room in it that axes and titles take.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 50.0;
/// Of the first, second and third curve: enough contrast on both grounds.
const COLOURS: [&str; 3] = ["#2f81f7", "#db6d28", "#2da44e"];

/// A system of axes with curves in it.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// Above it.
    pub(crate) title: String,
    /// What goes to the right, with its unit.
    pub(crate) x: String,
    /// What goes up, with its unit.
    pub(crate) y: String,
    /// Each decade to the right is equally wide; all places must then be positive.
    pub(crate) logarithmic: bool,
    /// Name and points of each curve, ordered from left to right.
    pub(crate) curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// The whole picture.
pub(crate) fn render(panels: &[Panel]) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" height=\"{HEIGHT}\" role=\"img\">\n\
         <style>\n\
         text {{ font: 12px system-ui, sans-serif; fill: #57606a; }}\n\
         .title {{ font-size: 13px; font-weight: 600; }}\n\
         .axis {{ stroke: #8c959f; fill: none; }}\n\
         .grid {{ stroke: #8c959f; stroke-opacity: 0.25; }}\n\
         .curve {{ fill: none; stroke-width: 2; }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #c9d1d9; }} }}\n\
         </style>\n"
    );
    for (at, panel) in panels.iter().enumerate() {
        let _ = writeln!(text, "<g transform=\"translate({} 0)\">", WIDTH * at as f64);
        panel.draw(&mut text);
        text.push_str("</g>\n");
    }
    text + "</svg>\n"
}

impl Panel {
    fn draw(&self, text: &mut String) {
        let points = || self.curves.iter().flat_map(|(_, points)| points);
        let highest = points().map(|point| point.1).fold(0.0, f64::max);
        let (top, step) = nice(highest);
        let place = |x: f64| if self.logarithmic { x.log10() } else { x };
        let (mut first, last) =
            points().map(|point| place(point.0)).fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
        if !self.logarithmic {
            first = first.min(0.0);
        }
        let span = if last > first { last - first } else { 1.0 };
        let across = |x: f64| LEFT + (place(x) - first) / span * (WIDTH - LEFT - RIGHT);
        let up = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);

        let _ = writeln!(text, "<text class=\"title\" x=\"{LEFT}\" y=\"16\">{}</text>", escape(&self.title));
        let mut y = 0.0;
        while y <= top * 1.000_001 {
            let at = up(y);
            let _ = writeln!(
                text,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                short(y)
            );
            y += step;
        }
        let floor = HEIGHT - BOTTOM;
        let _ = writeln!(text, "<path class=\"axis\" d=\"M{LEFT} {TOP} V{floor} H{}\"/>", WIDTH - RIGHT);
        let mut right = f64::MIN;
        for x in self.places() {
            let at = across(x);
            let _ = writeln!(text, "<path class=\"axis\" d=\"M{at:.1} {floor} v4\"/>");
            // Where places are close together, not each can have its number.
            if at - right > 34.0 {
                let _ = writeln!(
                    text,
                    "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    floor + 18.0,
                    short(x)
                );
                right = at;
            }
        }
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 12.0,
            escape(&self.x)
        );
        let middle = (TOP + floor) / 2.0;
        let _ = writeln!(
            text,
            "<text transform=\"translate(14 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escape(&self.y)
        );
        let mut legend = LEFT;
        for (at, (name, points)) in self.curves.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let path: Vec<String> = points.iter().map(|(x, y)| format!("{:.1},{:.1}", across(*x), up(*y))).collect();
            let _ = writeln!(text, "<polyline class=\"curve\" stroke=\"{colour}\" points=\"{}\"/>", path.join(" "));
            for (x, y) in points {
                let _ = writeln!(
                    text,
                    "<circle fill=\"{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{}, {}: {}</title></circle>",
                    across(*x),
                    up(*y),
                    escape(name),
                    short(*x),
                    short(*y)
                );
            }
            // The only curve is what the axis says.
            if self.curves.len() > 1 {
                let _ = writeln!(
                    text,
                    "<rect fill=\"{colour}\" x=\"{legend}\" y=\"26\" width=\"12\" height=\"4\"/>\
                     <text x=\"{}\" y=\"32\">{}</text>",
                    legend + 17.0,
                    escape(name)
                );
                // Nobody here knows the font: some seven units a character.
                legend += 32.0 + 7.0 * name.chars().count() as f64;
            }
        }
    }

    /// All places of points, from left to right.
    fn places(&self) -> Vec<f64> {
        let mut places: Vec<f64> =
            self.curves.iter().flat_map(|(_, points)| points.iter().map(|point| point.0)).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        places
    }
}

/// A round number not below `highest`, and a step that divides it into two to five parts.
fn nice(highest: f64) -> (f64, f64) {
    if highest <= 0.0 || !highest.is_finite() {
        return (1.0, 0.5);
    }
    let decade = 10f64.powf(highest.log10().floor());
    let steps = [0.5, 1.0, 2.0, 5.0].map(|factor| factor * decade);
    let step = steps.into_iter().find(|step| highest / step <= 5.0).unwrap_or(10.0 * decade);
    ((highest / step).ceil() * step, step)
}

/// A number in few characters.
fn short(value: f64) -> String {
    let digits = |value: f64| {
        let text = format!("{value:.2}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    if value >= 1e6 {
        format!("{}M", digits(value / 1e6))
    } else if value >= 1e3 {
        format!("{}k", digits(value / 1e3))
    } else {
        digits(value)
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!(nice(4.2), (5.0, 1.0));
        assert_eq!(nice(97.0), (100.0, 20.0));
        assert_eq!(nice(1.0), (1.0, 0.5));
        assert_eq!(nice(0.0), (1.0, 0.5));
        for highest in [0.013, 0.7, 3.0, 51.0, 70_482.0] {
            let (top, step) = nice(highest);
            assert!(top >= highest && (1.9..=5.1).contains(&(top / step)), "{highest}: {top} {step}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.25, 7.0, 1000.0, 1500.0, 70_482.0, 2e6].map(short);
        assert_eq!(shown, ["0", "0.25", "7", "1k", "1.5k", "70.48k", "2M"]);
    }

    #[test]
    fn every_point_lies_within_its_panel() {
        let points = vec![(10.0, 1.0), (1000.0, 8.0), (100_000.0, 2.0)];
        let curves = vec![("a < b".to_owned(), points), ("c".to_owned(), vec![(10.0, 0.0)])];
        for logarithmic in [false, true] {
            let (title, x, y) = ("t".to_owned(), "statements".to_owned(), "MiB".to_owned());
            let text = render(&[Panel { title, x, y, logarithmic, curves: curves.clone() }]);
            assert_eq!(text.matches("<circle").count(), 4);
            assert!(text.contains("a &lt; b") && !text.contains("a < b"));
            for part in text.split("cx=\"").skip(1) {
                let number = |text: &str| text.split('"').next().and_then(|text| text.parse::<f64>().ok());
                let x = number(part).unwrap_or(-1.0);
                let y = part.split("cy=\"").nth(1).and_then(number).unwrap_or(-1.0);
                assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y), "{x} {y}");
            }
        }
    }

    #[test]
    fn a_panel_of_one_place_is_drawn_too() {
        let (title, x, y) = (String::new(), String::new(), String::new());
        let text = render(&[Panel { title, x, y, logarithmic: true, curves: vec![(String::new(), vec![(1.0, 1.0)])] }]);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
