use querylens::capture::*;
use querylens::model::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let pid: u32 = a[1].parse().unwrap();
    let port: u16 = a[2].parse().unwrap();
    let strategy = match a[3].as_str() {
        "socket" => Choice::Socket,
        "boundary" => Choice::Boundary,
        "syscall" => Choice::Syscall,
        _ => Choice::Auto,
    };
    let engine = if a[4] == "pg" { Engine::Postgresql } else { Engine::Mariadb };
    let verbose = a.len() > 5;
    let (mut c, mut r) = Control::open(&Config { strategy, ring_bytes: 8 << 20 }).map_err(|e| e.0).unwrap();
    println!("{:?}", c.features());
    let i = Instance {
        key: ServerKey { pid, start_ticks: 0 },
        engine,
        version: None,
        executable: "".into(),
        data_dir: None,
        uid: 0,
        listen: vec![Listen::Tcp(([127, 0, 0, 1], port).into())],
        container: None,
        service_instance_id: Default::default(),
    };
    println!(
        "{:?}",
        c.watch(0, &i, || {
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
                .unwrap()
                .split_whitespace()
                .map(|x| x.parse().unwrap())
                .collect()
        })
    );
    let mut n = [0u64; 8];
    let mut bytes = 0;
    let t = std::time::Instant::now();
    while t.elapsed().as_secs() < 10 {
        let (k, b) = r.drain(1 << 20, |x| {
            n[x.header.kind as usize] += 1;
            if verbose && n[1] < 60 {
                println!("{:?} {:?}", x.header, String::from_utf8_lossy(&x.payload[..x.payload.len().min(60)]));
            }
        });
        bytes += b;
        if k == 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    println!("{n:?} {bytes} {:?} {:?}", c.losses(), c.program_time());
}
