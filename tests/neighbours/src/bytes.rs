//! Large records behind sagas that loop. Invariant: all of them are in the topic before the host starts, so that nothing but
//! the host itself bounds what it takes in.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    figures::Figure,
    load,
    site::{Bench, Site},
};

pub const ABOUT: &str = "Two workers, 12 sagas that loop until their deadline of one second, and 2,500 records of 900 kB behind \
them. The most memory that the host ever held within 40 seconds. The bound is `in-flight-bytes-max` and `cache-bytes-max` (64 MiB \
each) and 128 MB for the rest of the host.";

const CONFIG: &str = "\
[pipeline]
workers = 2
[plugin.hostile.on.HostileTried]
retry = { attempts-max = 5, base = \"100ms\", cap = \"10s\" }
";
const LOOPING: usize = 12;
const LARGE: usize = 2_500;
const LARGE_BYTES: usize = 900_000;
const WATCHED: Duration = Duration::from_secs(40);
const BOUND_MB: f64 = 2.0 * 67.108864 + 128.0;

pub fn run(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let mut site = Site::new(bench, &["hostile"], CONFIG)?;
    site.make_topics(&["hostile-tried"])?;
    let looping: Vec<_> = (0..LOOPING).map(|number| format!("loops-{number}")).collect();
    let looping: Vec<_> = looping.iter().map(|saga| load::tried(saga, saga, "loop", 0)).collect();
    site.topics().offer_all(&looping)?;
    for chunk in (0..LARGE).collect::<Vec<_>>().chunks(50) {
        let sagas = chunk.iter().map(|number| format!("large-{number:04}"));
        let records: Vec<_> = sagas.map(|saga| load::tried(&saga, &saga, "none", LARGE_BYTES)).collect();
        site.topics().offer_all(&records)?;
    }
    site.start()?;
    let (end, mut resident) = (Instant::now() + WATCHED, Vec::new());
    let mut reader = site.reader(&["hostile-done"])?;
    let mut done = 0;
    while Instant::now() < end && done < LARGE {
        resident.push(site.resident_bytes()? / 1e6);
        done += reader.read()?.len();
        thread::sleep(Duration::from_millis(100));
    }
    Ok(vec![
        Figure::new("most memory", "MB", site.peak_resident_bytes()? / 1e6).at_most(BOUND_MB),
        Figure::new("memory, median", "MB", sagahost_demo::figures::quantile(&resident, 0.5)),
        Figure::new("large records done", "", done as f64),
    ])
}
