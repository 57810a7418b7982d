//! The floor of a fan-out: one loop that writes frames that are there to sockets that are open.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use super::Plan;

/// Builds frames as long as those in `FIGURES_DIR/frames` (length and last record of each) and sends each to all
/// subscribers, as often as planned; writes down when.
pub fn serve() -> ExitCode {
    let plan = Plan::from_environment();
    let dir = PathBuf::from(std::env::var("FIGURES_DIR").unwrap());
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());
    let mut sockets = Vec::new();
    while sockets.len() < plan.subscribers {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        socket
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            .unwrap();
        sockets.push(socket);
    }
    let frames = std::fs::read_to_string(dir.join("frames")).unwrap();
    let frames = frames.lines().map(|line| {
        let (len, last) = line.split_once(' ').unwrap();
        frame(len.parse().unwrap(), last)
    });
    let frames = Vec::from_iter(frames);
    let mut sent = String::new();
    for frame in frames {
        if !plan.every.is_zero() {
            std::thread::sleep(plan.every);
        }
        sent.push_str(&super::micros(SystemTime::now()).to_string());
        sent.push('\n');
        for socket in &mut sockets {
            socket.write_all(&frame).unwrap();
        }
    }
    std::fs::write(dir.join("durable.new"), sent).unwrap();
    std::fs::rename(dir.join("durable.new"), dir.join("durable")).unwrap();
    // The parent reads this process's CPU time and then ends it.
    loop {
        std::thread::park();
    }
}

/// A frame whose payload has `len` bytes, and where a reader finds the number of its last record.
fn frame(len: usize, last: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(len) {
        Ok(short) if short < 126 => frame.push(u8::try_from(len).unwrap()),
        Ok(len) => {
            frame.push(126);
            frame.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    let from = frame.len();
    frame.resize(from + len, b'x');
    let mark = format!("{}{last}\"", super::client::MARK);
    let at = frame.len() - mark.len();
    frame[at..].copy_from_slice(mark.as_bytes());
    frame
}
