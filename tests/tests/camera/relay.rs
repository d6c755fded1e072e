//! A camera whose clock jumps: a relay in front of the stand-in that rewrites the time stamps of RTP
//! inside the RTSP connection (RFC 2326, 10.12).

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};

/// Frames between two jumps: not a whole number of GOPs, so that jumps fall inside them.
const FRAMES: u32 = 70;

/// 90 kHz: an hour there, and an hour back.
const JUMP: u32 = 3_600 * 90_000;

/// Relays to this port of 127.0.0.1; returns its own.
pub(crate) async fn jumping_clock(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let camera = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut from_client, to_client) = client.into_split();
            let (from_camera, mut to_camera) = camera.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_camera).await });
            tokio::spawn(shift(BufReader::new(from_camera), to_client));
        }
    });
    own
}

async fn shift(
    mut from: BufReader<impl AsyncRead + Unpin>,
    mut to: OwnedWriteHalf,
) -> std::io::Result<()> {
    let (mut frames, mut last) = (0_u32, None);
    loop {
        let mut bytes = vec![from.read_u8().await?];
        if bytes[0] == b'$' {
            let channel = from.read_u8().await?;
            let len = from.read_u16().await?;
            bytes.push(channel);
            bytes.extend(len.to_be_bytes());
            let mut packet = vec![0; usize::from(len)];
            from.read_exact(&mut packet).await?;
            if channel % 2 == 0 && packet.len() >= 8 {
                let time = u32::from_be_bytes(packet[4..8].try_into().unwrap());
                if last != Some(time) {
                    (frames, last) = (frames + 1, Some(time));
                }
                let jumped = time.wrapping_add((frames / FRAMES % 2) * JUMP);
                packet[4..8].copy_from_slice(&jumped.to_be_bytes());
            }
            bytes.extend(packet);
        } else {
            // an answer: lines until an empty one, then its body
            let mut body = 0;
            loop {
                let from_at = bytes.len();
                from.read_until(b'\n', &mut bytes).await?;
                let line = String::from_utf8_lossy(&bytes[from_at..])
                    .trim()
                    .to_lowercase();
                if let Some(len) = line.strip_prefix("content-length:") {
                    body = len.trim().parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut rest = vec![0; body];
            from.read_exact(&mut rest).await?;
            bytes.extend(rest);
        }
        to.write_all(&bytes).await?;
    }
}
