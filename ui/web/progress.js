// How far a job is, in the window's title; and a sound at its end where that is wanted.

import { visible } from "./visible.js";

const SHARE = /^\d+% · /;

export function watchProgress() {
  let working = false;
  setInterval(() => {
    const bar = visible("#stage .bar");
    const title = document.title.replace(SHARE, "");
    const told = bar ? `${bar.getAttribute("aria-valuenow")}% · ${title}` : title;
    if (document.title !== told) document.title = told;
    if (working && !bar && document.querySelector("#sound input")?.checked) chime();
    working = Boolean(bar);
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
