// Shows a job's progress in the window's title, and plays a sound at its end if wanted.

const SHARE = /^\d+% · /;

// The progress bar of this page's job, visible or not; null if there is no job.
export const progressBar = () => document.querySelector("#stage .bar");

export function watchProgress() {
  let worked = false;
  setInterval(() => {
    const bar = progressBar();
    const title = document.title.replace(SHARE, "");
    const told = bar ? `${bar.getAttribute("aria-valuenow")}% · ${title}` : title;
    if (document.title !== told) document.title = told;
    if (worked && !bar && document.querySelector("#sound input")?.checked) chime();
    worked = Boolean(bar);
  }, 500);
}

function chime() {
  const audio = new AudioContext();
  [660, 880].forEach((pitch, index) => {
    const [tone, volume, start] = [audio.createOscillator(), audio.createGain(), audio.currentTime + index * 0.18];
    tone.frequency.value = pitch;
    volume.gain.setValueAtTime(0.15, start);
    volume.gain.exponentialRampToValueAtTime(0.001, start + 0.5);
    tone.connect(volume).connect(audio.destination);
    tone.start(start);
    tone.stop(start + 0.5);
  });
  setTimeout(() => audio.close(), 1500);
}
