//! Prometheus' text format, as the node's own `/metrics` writes it.
//!
//! Invariant: a line that is no sample is passed over, so that a new kind of line breaks no page.
//! Deliberately absent: what the metrics mean.

/// One line: a metric with its labels and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line<'t> {
    pub(crate) name: &'t str,
    labels: &'t str,
    pub(crate) value: f64,
}

impl Line<'_> {
    /// The value of a label, unescaped; absent labels have none.
    pub(crate) fn label(&self, name: &str) -> Option<String> {
        let mut rest = self.labels;
        while let Some((label, after)) = rest.split_once("=\"") {
            let mut value = String::new();
            let mut letters = after.char_indices();
            let mut end = after.len();
            while let Some((index, letter)) = letters.next() {
                match letter {
                    '"' => {
                        end = index + 1;
                        break;
                    }
                    '\\' => match letters.next() {
                        Some((_, 'n')) => value.push('\n'),
                        Some((_, other)) => value.push(other),
                        None => {}
                    },
                    other => value.push(other),
                }
            }
            if label.trim_start_matches(',').trim() == name {
                return Some(value);
            }
            rest = after.get(end..).unwrap_or_default();
        }
        None
    }

    /// Whether a label has this value.
    pub(crate) fn is(&self, label: &str, value: &str) -> bool {
        self.label(label).is_some_and(|given| given == value)
    }
}

/// The samples of a text.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(|line| {
        if line.starts_with('#') {
            return None;
        }
        let (head, value) = line.rsplit_once(' ')?;
        let value = match value {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            value => value.parse().ok()?,
        };
        let (name, labels) = head.split_once('{').unwrap_or((head, ""));
        let labels = labels.strip_suffix('}').unwrap_or(labels);
        Some(Line {
            name,
            labels,
            value,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let text = "# HELP a b\n# TYPE a counter\na 3\n\nb_bucket{route=\"/x{y}\",le=\"+Inf\"} 17\n\
                    c{code=\"a\\\"b\\\\,c\\n=\\\"d\",e=\"f\"} 0.5\nbroken\nd NaN\n";
        let found: Vec<Line<'_>> = lines(text).collect();
        assert_eq!(found.len(), 4);
        assert_eq!((found[0].name, found[0].value), ("a", 3.0));
        assert_eq!(found[0].label("route"), None);
        assert_eq!(found[1].label("route").as_deref(), Some("/x{y}"));
        assert!(found[1].is("le", "+Inf"));
        assert_eq!(found[2].label("code").as_deref(), Some("a\"b\\,c\n=\"d"));
        assert!(found[2].is("e", "f"));
        assert!(found[3].value.is_nan());
    }
}
