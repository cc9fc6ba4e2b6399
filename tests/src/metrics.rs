//! Samples in Prometheus' text format.

/// Sum of the samples of `name` that have all of these labels; `None` if there is none.
pub fn sum(exposition: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let samples = exposition.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (own, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let fits = labels.iter().all(|(label, value)| own.contains(&format!("{label}=\"{value}\"")));
        let number = value.split(' ').next()?.parse::<f64>().ok()?;
        fits.then_some(number)
    });
    samples.reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn samples_are_chosen_by_name_and_labels() {
        let text = "# TYPE rows gauge\nrows{state=\"dead\",table=\"a}b\"} 3\nrows{state=\"dead\",table=\"b\"} 4 17\nrows_total 9\n";
        assert_eq!(sum(text, "rows", &[("state", "dead")]), Some(7.0));
        assert_eq!(sum(text, "rows", &[("state", "dead"), ("table", "b")]), Some(4.0));
        assert_eq!(sum(text, "rows", &[("state", "live")]), None);
        assert_eq!(sum(text, "rows_total", &[]), Some(9.0));
    }
}
