//! Recall against speed as an SVG that any browser opens: white ground, one curve, no library.
//!
//! The curve falls to the right, so the ground right of and above it is free, and labels go there first; one that would lie on another
//! goes to the next free place.

use std::fmt::Write as _;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 500.0;
/// The rectangle of the axes: left, top, right, bottom.
const AREA: [f64; 4] = [84.0, 82.0, WIDTH - 36.0, HEIGHT - 66.0];
/// About the width of one letter of a label, and its height.
const LETTER: [f64; 2] = [6.8, 13.0];
const INK: &str = "#1f2937";
const QUIET: &str = "#6b7280";
const GRID: &str = "#e5e7eb";
const CURVE: &str = "#2563eb";

/// A curve to draw.
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) legend: String,
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    pub(crate) points: Vec<Point>,
}

/// One measured point: `x` from 0 to 1, `y` above 0.
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// In bold beside the point.
    pub(crate) label: String,
    /// Behind it, quietly.
    pub(crate) note: String,
}

/// One axis: how values lie on it, and where it is marked.
struct Axis {
    log: bool,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// Steps of 1, 2 or 5 around `low` to `high`, within `floor` and `ceiling`.
    fn linear(low: f64, high: f64, floor: f64, ceiling: f64) -> Axis {
        let least_step = (high.abs() * 1e-3).max(1e-3);
        let rough = ((high - low) / 5.0).max(least_step);
        let ten = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|s| s * ten).find(|&s| s >= rough * 0.999).unwrap_or(rough);
        let first = ((low / step).floor() as i64).max((floor / step).round() as i64);
        let last = ((high / step).ceil() as i64).max(first + 1);
        let ticks: Vec<f64> = (first..=last).map(|t| t as f64 * step).filter(|&t| t <= ceiling + step * 1e-6).collect();
        let top = ticks.last().copied().unwrap_or(high).max(high).min(ceiling);
        Axis { log: false, low: first as f64 * step, high: top, ticks }
    }

    /// 1, 2 and 5 of every power of ten around `low` to `high`; the powers alone where there are many.
    fn log(low: f64, high: f64) -> Axis {
        let powers = low.log10().floor() as i32 - 1..=high.log10().ceil() as i32;
        let steps = if high > 1e4 * low { &[1.0][..] } else { &[1.0, 2.0, 5.0] };
        let marks: Vec<f64> = powers.flat_map(|p| steps.iter().map(move |m| m * 10f64.powi(p))).collect();
        let below = marks.iter().rposition(|&m| m <= low * 0.98).unwrap_or(0);
        let above = marks.iter().position(|&m| m >= high * 1.02).unwrap_or(marks.len() - 1);
        let ticks = marks[below..=above.max(below)].to_vec();
        Axis { log: true, low: marks[below], high: marks[above.max(below)], ticks }
    }

    /// Where `value` lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let [value, low, high] = [value, self.low, self.high].map(|v| if self.log { v.log10() } else { v });
        if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 }
    }

    fn tick_text(&self, tick: f64) -> String {
        let step = if self.log || self.ticks.len() < 2 { tick } else { self.ticks[1] - self.ticks[0] };
        let decimals = (-step.abs().max(1e-9).log10()).ceil().clamp(0.0, 6.0) as usize;
        match tick {
            t if t >= 1e6 => format!("{}M", t / 1e6),
            t if t >= 1e4 => format!("{}k", t / 1e3),
            t => format!("{t:.decimals$}"),
        }
    }
}

/// A rectangle: left, top, right, bottom.
type Rect = [f64; 4];

fn overlap(a: &Rect, b: &Rect) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// The chart as a whole SVG document. Points that are not finite, or not above 0 on the y axis, are left out.
pub(crate) fn svg(chart: &Chart) -> String {
    let points: Vec<&Point> = chart.points.iter().filter(|p| p.x.is_finite() && p.y.is_finite() && p.y > 0.0).collect();
    let least = |value: fn(&Point) -> f64| points.iter().map(|p| value(p)).fold(f64::INFINITY, f64::min);
    let most = |value: fn(&Point) -> f64| points.iter().map(|p| value(p)).fold(f64::NEG_INFINITY, f64::max);
    let [x_low, x_high, y_low, y_high] =
        if points.is_empty() { [0.0, 1.0, 1.0, 1.0] } else { [least(|p| p.x), most(|p| p.x), least(|p| p.y), most(|p| p.y)] };
    let room = ((x_high - x_low) * 0.06).max(0.002);
    let x_axis = Axis::linear(x_low - room, x_high + room, 0.0, 1.0);
    let y_axis =
        if y_high > 10.0 * y_low { Axis::log(y_low, y_high) } else { Axis::linear(y_low * 0.9, y_high * 1.05, 0.0, f64::INFINITY) };
    let [left, top, right, bottom] = AREA;
    let x_of = |x: f64| left + x_axis.place(x) * (right - left);
    let y_of = |y: f64| bottom - y_axis.place(y) * (bottom - top);

    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, 'Helvetica Neue', Arial, sans-serif" font-size="12" fill="{INK}">"#
    );
    let _ = writeln!(out, r#"<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>"#);
    let _ = writeln!(out, r#"<text x="{left}" y="34" font-size="18" font-weight="600">{}</text>"#, escape(&fit(&chart.title, 72)));
    let _ = writeln!(out, r#"<text x="{left}" y="56" fill="{QUIET}">{}</text>"#, escape(&fit(&chart.subtitle, 110)));
    for &tick in &x_axis.ticks {
        let (x, text) = (x_of(tick), x_axis.tick_text(tick));
        let _ = writeln!(out, r#"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{bottom}" stroke="{GRID}"/>"#);
        let _ = writeln!(out, r#"<text x="{x:.1}" y="{}" text-anchor="middle" fill="{QUIET}">{text}</text>"#, bottom + 20.0);
    }
    for &tick in &y_axis.ticks {
        let (y, text) = (y_of(tick), y_axis.tick_text(tick));
        let _ = writeln!(out, r#"<line x1="{left}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="{GRID}"/>"#);
        let _ = writeln!(out, r#"<text x="{}" y="{:.1}" text-anchor="end" fill="{QUIET}">{text}</text>"#, left - 10.0, y + 4.0);
    }
    let _ = writeln!(out, r#"<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="{QUIET}"/>"#);
    let middle = (left + right) / 2.0;
    let _ =
        writeln!(out, r#"<text x="{middle}" y="{}" text-anchor="middle" font-size="13">{}</text>"#, HEIGHT - 18.0, escape(&chart.x_label));
    let middle = (top + bottom) / 2.0;
    let y_label = format!("{}{}", chart.y_label, if y_axis.log { " (log)" } else { "" });
    let _ = writeln!(
        out,
        r#"<text transform="translate(24 {middle}) rotate(-90)" text-anchor="middle" font-size="13">{}</text>"#,
        escape(&y_label)
    );

    let places: Vec<(f64, f64)> = points.iter().map(|p| (x_of(p.x), y_of(p.y))).collect();
    let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ =
        writeln!(out, r#"<polyline points="{}" fill="none" stroke="{CURVE}" stroke-width="2" stroke-linejoin="round"/>"#, line.join(" "));
    let mut taken: Vec<Rect> = places.iter().map(|&(x, y)| [x - 5.0, y - 5.0, x + 5.0, y + 5.0]).collect();
    legend(&mut out, chart, &places, &mut taken);
    for (point, &(x, y)) in points.iter().zip(&places) {
        let _ = writeln!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.5" fill="{CURVE}" stroke="white" stroke-width="1.5"/>"#);
        let letters = point.label.chars().count() + 1 + point.note.chars().count();
        let (label_x, label_y) = free_place(x, y, letters as f64 * LETTER[0], &mut taken);
        let (label, note) = (escape(&point.label), escape(&point.note));
        // The white edge keeps a label readable where it crosses a line.
        let _ = writeln!(
            out,
            r#"<text x="{label_x:.1}" y="{label_y:.1}" stroke="white" stroke-width="3" paint-order="stroke"><tspan font-weight="600">{label}</tspan> <tspan fill="{QUIET}">{note}</tspan></text>"#
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Where a label of `width` for the point at (x, y) goes: its left end and its baseline. The place is taken then.
fn free_place(x: f64, y: f64, width: f64, taken: &mut Vec<Rect>) -> (f64, f64) {
    let height = LETTER[1];
    let (right, left) = (x + 9.0, x - 9.0 - width);
    let near =
        [(right, y - 5.0), (right, y + 4.0), (left, y + 16.0), (left, y + 4.0), (x - width / 2.0, y - 12.0), (x - width / 2.0, y + 22.0)];
    let farther = (1..12).flat_map(|i| [(right, y - 5.0 - 9.0 * f64::from(i)), (left, y + 16.0 + 9.0 * f64::from(i))]);
    let rect = |(x, baseline): (f64, f64)| [x, baseline - height + 2.0, x + width, baseline + 3.0];
    let inside = |r: &Rect| r[0] > AREA[0] && r[2] < AREA[2] + 6.0 && r[1] > AREA[1] - 14.0 && r[3] < AREA[3];
    let free = |&place: &(f64, f64)| inside(&rect(place)) && taken.iter().all(|t| !overlap(t, &rect(place)));
    let place = near.into_iter().chain(farther).find(free).unwrap_or((right, y - 5.0));
    taken.push(rect(place));
    place
}

/// Draws the legend in the corner with the fewest points.
fn legend(out: &mut String, chart: &Chart, places: &[(f64, f64)], taken: &mut Vec<Rect>) {
    let [left, top, right, bottom] = AREA;
    let text = fit(&chart.legend, 70);
    let (width, height) = (text.chars().count() as f64 * LETTER[0] * 0.9 + 54.0, 28.0);
    let corner = |x: f64, y: f64| [x, y, x + width, y + height];
    let low = bottom - 12.0 - height;
    let corners = [
        corner(left + 12.0, low),
        corner(right - 12.0 - width, top + 12.0),
        corner(left + 12.0, top + 12.0),
        corner(right - 12.0 - width, low),
    ];
    let crowd = |rect: &Rect| {
        let wide = [rect[0] - 40.0, rect[1] - 30.0, rect[2] + 40.0, rect[3] + 30.0];
        // The curve between two points counts as well.
        let between = places.windows(2).flat_map(|w| (0..=20).map(move |i| along(w[0], w[1], f64::from(i) / 20.0)));
        between.chain(places.iter().copied()).filter(|&(x, y)| overlap(&wide, &[x, y, x + 0.1, y + 0.1])).count()
    };
    let Some(&[x, y, x_end, y_end]) = corners.iter().min_by_key(|c| crowd(c)) else { return };
    taken.push([x, y, x_end, y_end]);
    let _ = writeln!(out, r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height}" rx="4" fill="white" stroke="{GRID}"/>"#);
    let middle = y + height / 2.0;
    let _ = writeln!(out, r#"<path d="M{:.1} {middle:.1}h24" stroke="{CURVE}" stroke-width="2"/>"#, x + 10.0);
    let _ = writeln!(out, r#"<circle cx="{:.1}" cy="{middle:.1}" r="4" fill="{CURVE}"/>"#, x + 22.0);
    let _ = writeln!(out, r#"<text x="{:.1}" y="{:.1}">{}</text>"#, x + 42.0, middle + 4.0, escape(&text));
}

fn along(a: (f64, f64), b: (f64, f64), share: f64) -> (f64, f64) {
    (a.0 + (b.0 - a.0) * share, a.1 + (b.1 - a.1) * share)
}

/// At most `letters` of `text`, the end kept: of a path it is the name.
fn fit(text: &str, letters: usize) -> String {
    let surplus = text.chars().count().saturating_sub(letters);
    if surplus == 0 { text.to_string() } else { format!("…{}", text.chars().skip(surplus + 1).collect::<String>()) }
}

/// Text as it may stand in XML; characters that XML has not become a question mark.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64, &str)]) -> Chart {
        Chart {
            title: "sift <1M> & \"more\"\u{1}".into(),
            subtitle: "1,000,000 x 128 u8".into(),
            legend: "2 threads, beam width 4".into(),
            x_label: "recall@10".into(),
            y_label: "queries per second".into(),
            points: points.iter().map(|&(x, y, label)| Point { x, y, label: label.into(), note: "31 reads".into() }).collect(),
        }
    }

    /// Every tag is closed by its own name, every attribute is quoted, nothing follows the root.
    fn assert_well_formed(svg: &str) {
        let (mut open, mut rest, mut roots) = (Vec::new(), svg.trim(), 0);
        while let Some((text, after)) = rest.split_once('<') {
            assert!(!text.contains('>'), "a stray > in {text:?}");
            assert!(text.split('&').skip(1).all(|t| ["amp;", "lt;", "gt;", "quot;"].iter().any(|e| t.starts_with(e))), "{text:?}");
            let (tag, behind) = after.split_once('>').expect("an open tag");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let name = tag.trim_matches('/').split_whitespace().next().expect("a name");
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                roots += usize::from(open.is_empty());
                open.push(name);
            }
            rest = behind;
        }
        assert!(open.is_empty() && rest.is_empty() && roots == 1);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn every_label_and_word_is_in_a_well_formed_picture() {
        let points = [(0.81, 4000.0, "16"), (0.92, 2500.0, "32"), (0.97, 1400.0, "64"), (0.99, 300.0, "128")];
        let svg = svg(&chart(&points));
        assert_well_formed(&svg);
        for (_, _, label) in points {
            assert!(svg.contains(&format!(">{label}</tspan>")), "{label}");
        }
        for word in [
            "sift &lt;1M&gt; &amp; &quot;more&quot;?",
            "1,000,000 x 128 u8",
            "2 threads, beam width 4",
            "recall@10",
            "queries per second (log)",
        ] {
            assert!(svg.contains(word), "{word}");
        }
    }

    #[test]
    fn odd_sets_of_points_are_drawn_all_the_same() {
        for points in [
            &[][..],
            &[(1.0, 5.0, "8")],
            &[(0.5, 1e9, "1"), (0.5, 1e-3, "2")],
            &[(0.0, 3.0, "a"), (0.0, 3.0, "b")],
            &[(f64::NAN, 1.0, "x"), (0.9, 0.0, "y")],
        ] {
            assert_well_formed(&svg(&chart(points)));
        }
    }

    #[test]
    fn axes_are_marked_at_round_numbers() {
        let x = Axis::linear(0.80, 0.995, 0.0, 1.0);
        let texts: Vec<String> = x.ticks.iter().map(|&t| x.tick_text(t)).collect();
        assert_eq!(texts, ["0.80", "0.85", "0.90", "0.95", "1.00"]);
        let y = Axis::log(300.0, 12_000.0);
        let texts: Vec<String> = y.ticks.iter().map(|&t| y.tick_text(t)).collect();
        assert_eq!(texts, ["200", "500", "1000", "2000", "5000", "10k", "20k"]);
        assert_eq!(Axis::linear(0.0, 100.0, 0.0, f64::INFINITY).ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
    }

    #[test]
    fn labels_of_points_close_together_do_not_lie_on_each_other() {
        let mut taken = Vec::new();
        for i in 0..6 {
            free_place(400.0 + f64::from(i), 250.0 + f64::from(i), 70.0, &mut taken);
        }
        let crossing = (0..6).flat_map(|a| (0..a).map(move |b| (a, b))).filter(|&(a, b)| overlap(&taken[a], &taken[b]));
        assert_eq!(crossing.count(), 0);
    }

    #[test]
    fn a_long_title_keeps_its_end() {
        assert_eq!((fit("abc", 3), fit("abcd", 3)), ("abc".into(), "…cd".into()));
    }
}
