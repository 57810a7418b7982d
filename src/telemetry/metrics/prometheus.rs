//! The Prometheus text form, version 0.0.4, for scrapers without OpenMetrics.
//!
//! | | OpenMetrics | Prometheus text |
//! | --- | --- | --- |
//! | name of a counter in `# HELP` and `# TYPE` | without `_total` | as on its samples, with `_total` |
//! | kind `info` | `name`, samples `name_info` | a gauge `name_info` |
//! | kind `unknown` | `unknown` | `untyped` |
//! | `# UNIT`, `# EOF` | there | not there |

/// Converts an OpenMetrics text. Samples stay unchanged, because ours have neither exemplars nor times.
#[must_use]
pub fn text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // HELP comes before TYPE, but the name on both depends on the type.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                text += &format!("# HELP {name}{suffix} {help}\n");
            }
            text += &format!("# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn kinds_and_names_are_those_of_the_text_form() {
        let open_metrics = "# HELP a_b Calls.\n# TYPE a_b counter\n# UNIT a_b seconds\na_b_total{x=\"# y\"} 1\n\
            # HELP c Version.\n# TYPE c info\nc_info{v=\"1\"} 1\n\
            # HELP d Size.\n# TYPE d gauge\nd 2.0\n# EOF\n";
        let text = "# HELP a_b_total Calls.\n# TYPE a_b_total counter\na_b_total{x=\"# y\"} 1\n\
            # HELP c_info Version.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n\
            # HELP d Size.\n# TYPE d gauge\nd 2.0\n";
        assert_eq!(super::text(open_metrics), text);
    }
}
