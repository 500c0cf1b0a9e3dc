// What the page does besides Gradio: it speaks the browser's language; the title tells how far a job is, a sound its end;
// the keyboard; pictures that are pasted, or dragged from the results.
(catalogues) => {
  // Texts of the page by the catalogue of ui/locale for the browser's language: whole, part by part where " · " joins them,
  // or as a key with {} in it. What stands in quotes is a name and stays.
  const language = [navigator.language, navigator.language.split("-")[0]].find((code) => code in catalogues);
  const catalogue = catalogues[language] ?? {};
  const literally = (text) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
  const patterns = Object.keys(catalogue).map((key) => key.split("{}")).filter((parts) => parts.length > 1)
    .sort((a, b) => b.join("").length - a.join("").length)
    .map((parts) => [new RegExp(`^${parts.map(literally).join("(.*?)")}$`, "s"), parts]);
  const translate = (text) => {
    if (Object.hasOwn(catalogue, text)) return catalogue[text];
    if (text.includes(" · ")) return text.split(" · ").map(translate).join(" · ");
    for (const [pattern, parts] of patterns) {
      const [, ...values] = text.match(pattern) ?? [];
      if (!values.length) continue;
      const said = values.map((value, i) => (parts[i].endsWith('"') ? value : translate(value)));
      return catalogue[parts.join("{}")].split("{}").reduce((before, after, i) => before + said[i - 1] + after);
    }
    return text;
  };

  // what people typed, names of files, models and styles, and what menus offer, as requests and infotext say it
  const THEIRS = "textarea, input, code, pre, style, script, .token, .options, .file-preview, #picker .gallery, "
    + "#report td:first-child";
  const SPOKEN = ["placeholder", "aria-label"];
  const localize = (node) => {
    if (node.nodeType === Node.TEXT_NODE) {
      const text = node.data.trim();
      if (!text || node.parentElement?.closest(THEIRS)) return;
      const said = translate(text);
      if (said !== text) node.data = node.data.replace(text, () => said);
    } else if (node.nodeType === Node.ELEMENT_NODE) {
      for (const name of SPOKEN) {
        const [text, said] = [node.getAttribute(name), translate(node.getAttribute(name) ?? "")];
        if (text && said !== text) node.setAttribute(name, said);
      }
      node.childNodes.forEach(localize);
    }
  };
  if (language) {
    document.documentElement.lang = language;
    localize(document.body);
    new MutationObserver((changes) => changes.forEach((change) =>
      change.type === "childList" ? change.addedNodes.forEach(localize) : localize(change.target),
    )).observe(document.body, { subtree: true, childList: true, characterData: true, attributeFilter: SPOKEN });
  }

  const title = document.title;
  const visible = (selector) => [...document.querySelectorAll(selector)].find((element) => element.offsetParent);

  let working = false;
  setInterval(() => {
    const bar = visible("#stage .bar");
    const told = bar ? `${bar.getAttribute("aria-valuenow")}% · ${title}` : title;
    if (document.title !== told) document.title = told;
    if (working && !bar && document.querySelector("#sound input")?.checked) chime();
    working = Boolean(bar);
    const arrow = document.querySelector("#read-data");
    if (arrow && !arrow.title) {
      arrow.title = translate('Read generation data from the prompt, or from the selected result if the prompt is empty');
      arrow.ariaLabel = arrow.title;
    }
    // the name that requests know an option by
    for (const option of document.querySelectorAll("[id^=option-]:not([title])")) option.title = option.id.replace("option-", "");
    // sentences in boxes are no texts of the document
    for (const box of document.querySelectorAll("#png-info-text textarea, #png-info-receipt textarea")) {
      const said = translate(box.value);
      if (said !== box.value) box.value = said;
    }
  }, 500);

  // Gradio cuts what was typed to a slider's range when its field is left; the server takes more, and says what is valid
  document.addEventListener("blur", (event) => {
    if (event.target.matches?.("input[data-testid='number-input']") && event.target.value) event.stopPropagation();
  }, true);

  const chime = () => {
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
  };

  // the clipboard where the browser offers one, which it does on this machine and over https
  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const field = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  };
  window.palimpsest = { copy, translate };

  // a picture into the input that shows first, or into the one that it was dropped on
  const inputs = "[id$=-picture], [id$=-editor], #upload-mask";
  const put = async (file, input) => {
    input.querySelector("[aria-label='Remove Image'], [aria-label='Clear canvas']")?.click();
    await new Promise((done) => setTimeout(done, 300));
    const field = input.querySelector("input[type=file]");
    if (!field) return;
    const files = new DataTransfer();
    files.items.add(file);
    field.files = files.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  };

  // what browsers cannot show comes as PNG; PNG info and the canvas take files as they are
  const UNSHOWN = /\.(heic|heif|hif|tiff?)$/i;
  const showable = async (file) => {
    const answer = await fetch(new URL("shown-picture", document.baseURI), { method: "POST", body: file });
    if (answer.ok) return new File([await answer.blob()], file.name.replace(UNSHOWN, ".png"), { type: "image/png" });
    alert(translate((await answer.json().catch(() => ({}))).detail ?? `${answer.status} ${answer.statusText}`));
  };
  const takesAll = (input) => input.id === "png-info-picture" || input.querySelector(".canvas");
  const unshown = (files, input) => (input && !takesAll(input) ? [...(files ?? [])] : []).find(({ name }) => UNSHOWN.test(name));
  const instead = async (event, file, input) => {
    event.preventDefault();
    event.stopImmediatePropagation();
    const shown = await showable(file);
    if (shown) put(shown, input);
  };
  for (const name of ["change", "drop"]) {
    document.addEventListener(name, (event) => {
      const input = event.target.closest?.(inputs);
      const file = unshown(event.target.files ?? event.dataTransfer?.files, input);
      if (file) instead(event, file, input);
    }, true);
  }

  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((pasted) => pasted.type.startsWith("image/"));
    const input = visible(inputs);
    if (!file || !input) return;
    event.preventDefault();
    put(file, input);
  });

  // copied generation data that is pasted into the prompt may be meant for the settings
  const offer = (shown) => document.querySelector("#offer")?.classList.toggle("shown", shown);
  document.addEventListener("paste", (event) => {
    if (!event.target.closest?.("#prompt textarea")) return;
    const text = event.clipboardData?.getData("text/plain") ?? "";
    offer(/(^|\n)\s*Steps: \d+, .*\b(Sampler|Seed|CFG scale): /.test(text));
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#offer button, #read-data")) offer(false);
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("#prompt textarea") && !event.target.value) offer(false);
  });

  const DRAGGED = "application/x-palimpsest";
  document.addEventListener("dragstart", (event) => {
    const image = event.target.closest?.("#gallery img, #history-picture img");
    if (image) event.dataTransfer.setData(DRAGGED, image.src);
  });
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes(DRAGGED) && event.target.closest?.(inputs)) event.preventDefault();
  }, true);
  document.addEventListener("drop", async (event) => {
    const [address, input] = [event.dataTransfer.getData(DRAGGED), event.target.closest?.(inputs)];
    if (!address || !input) return;
    event.preventDefault();
    event.stopPropagation();
    const picture = await (await fetch(address)).blob();
    put(new File([picture], decodeURIComponent(address.split("/").pop()), { type: picture.type }), input);
  }, true);

  // (word:1.1) around the selection or the word at the cursor, by Ctrl+Up and Ctrl+Down as in A1111
  const weigh = (field, step) => {
    let { selectionStart: start, selectionEnd: end, value } = field;
    if (start === end) {
      const around = /[^\s,()[\]:<>]/;
      while (start > 0 && around.test(value[start - 1])) start--;
      while (end < value.length && around.test(value[end])) end++;
    }
    if (start === end) return;
    let inner = value.slice(start, end);
    let weight = 1;
    const after = value.slice(end).match(/^:(-?[\d.]+)\)/);
    if (value[start - 1] === "(" && after) {
      weight = parseFloat(after[1]);
      start -= 1;
      end += after[0].length;
    }
    weight = Math.round((weight + step) * 100) / 100;
    const text = weight === 1 ? inner : `(${inner}:${weight})`;
    field.setRangeText(text, start, end, "end");
    const from = weight === 1 ? start : start + 1;
    field.setSelectionRange(from, from + inner.length);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };

  document.addEventListener("keydown", (event) => {
    const field = event.target.closest("#prompt textarea, #negative-prompt textarea");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      visible("button[id^=generate-]:not([disabled])")?.click();
    } else if (event.key === "Escape") {
      if (!document.querySelector("#keys dialog[open]")) visible("#interrupt:not([disabled])")?.click();
    } else if (field && (event.ctrlKey || event.metaKey) && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      weigh(field, event.key === "ArrowUp" ? 0.1 : -0.1);
    } else if (event.key === "?" && !event.target.closest("input, textarea, [contenteditable]")) {
      document.querySelector("#keys dialog").showModal();
    }
  });
}
