// The listening page: one utterance at a time, all its samples, A/B from the same position, blind if wished.
{
  const box = document.getElementById("listening");
  const at = (name) => document.getElementById(name);
  const state = { tables: [], media: [], table: 0, utterance: 0, position: 0, playing: null, cards: [], slots: {}, blind: false };
  page.listening = state;

  const utterance = () => state.tables[state.table].utterances[state.utterance];

  const start = () => {
    if (state.tables.length) return;
    state.tables = page.data("listen").map((table, number) => ({ ...table, number }));
    state.media = page.data("media");
    at("listen-table").replaceChildren(...state.tables.map((t) => page.make("option", { value: t.number, textContent: t.title, disabled: !t.utterances.length })));
    at("listen-table").hidden = state.tables.length < 2;
    state.table = Math.max(0, state.tables.findIndex((t) => t.utterances.length));
    fill();
    requestAnimationFrame(follow);
  };

  const fill = () => {
    const table = state.tables[state.table];
    at("listen-table").value = state.table;
    at("listen-utterance").replaceChildren(...table.utterances.map((u, i) => page.make("option", { value: i, textContent: `${u.id}: ${u.text}` })));
    state.utterance = Math.min(state.utterance, table.utterances.length - 1);
    show();
  };

  const show = () => {
    stop();
    const table = state.tables[state.table], shown = utterance();
    state.position = 0;
    at("listen-utterance").value = state.utterance;
    at("listen-text").textContent = shown.text;
    at("listen-why").textContent = `${state.utterance + 1} of ${table.utterances.length}; chosen: ${shown.why.join(", ")}` + (shown.speaker ? `; speaker ${shown.speaker}` : "");
    at("blind-told").hidden = !state.blind;
    const order = shown.samples.map((_, i) => i).filter((i) => !state.blind || shown.samples[i].sound !== undefined);
    if (state.blind) page.votes.shuffle(order);
    const longest = Math.max(0.1, shown.prompt.seconds || 0, ...shown.samples.map((s) => s.seconds || 0));
    state.cards = [];
    state.slots = {};
    const cards = [card({ ...shown.prompt, name: "Prompt", said: shown.prompt.text, prompt: true }, null, longest)];
    order.forEach((index, place) => {
      const row = table.rows[index];
      const made = { ...shown.samples[index], row, name: state.blind ? `Sample ${place + 1}` : row.name, figures: table.figures, place };
      cards.push(card(made, place, longest));
    });
    at("samples").replaceChildren(...cards);
  };

  const card = (sample, place, longest) => {
    const { make } = page;
    const hidden = state.blind && !sample.prompt;
    const title = make("h3", {}, ...(place === null ? [] : [make("span", { class: "number", textContent: place + 1 })]), make("bdi", { textContent: sample.name }));
    const head = make("header", {}, title);
    const reference = sample.prompt || (sample.row?.reference && !hidden);
    const element = make("article", { class: `sample${reference ? " reference" : ""}`, "aria-label": sample.name }, head);
    if (sample.sound === undefined) {
      element.append(make("p", { class: "missing", textContent: sample.missing || "no audio" }));
    } else {
      const audio = make("audio", { controls: true, preload: "auto", src: state.media[sample.sound], "aria-label": `Sound of ${sample.name}` });
      const line = make("span", { class: "at" });
      const picture = make("div", { class: `spectrogram${hidden ? " covered" : ""}` }, line);
      if (!hidden) {
        const image = make("img", { src: state.media[sample.image], alt: `Spectrogram of ${sample.name}` });
        image.style.width = `${(100 * sample.seconds) / longest}%`;
        picture.prepend(image);
      }
      const known = { audio, line, element, longest, sample };
      picture.addEventListener("click", (event) => {
        const area = picture.getBoundingClientRect();
        state.position = Math.min(((event.clientX - area.left) / area.width) * longest, sample.seconds);
        play(known);
      });
      audio.addEventListener("play", () => began(known));
      audio.addEventListener("pause", () => element.classList.remove("playing"));
      audio.addEventListener("seeked", () => { if (state.playing === known) state.position = audio.currentTime; });
      for (const slot of place === null ? [] : ["A", "B"]) {
        const button = make("button", { type: "button", class: "slot", textContent: slot, "aria-pressed": "false", "aria-label": `Set ${sample.name} as ${slot}` });
        button.addEventListener("click", () => set(slot, known));
        head.append(button);
        known[slot] = button;
      }
      if (place !== null) state.cards[place] = known;
      element.append(picture, audio);
    }
    if (hidden) element.append(page.votes.field(sample, state));
    else element.append(...about(sample));
    return element;
  };

  const about = (sample) => {
    const { make } = page;
    const found = [];
    const scores = (sample.scores || []).map((score, i) => [sample.figures[i], score]).filter(([, score]) => score !== null);
    if (scores.length) {
      found.push(make("dl", { class: "scores" }, ...scores.map(([[, label, scale, decimals], score]) => make("div", {}, make("dt", { textContent: label }), make("dd", { textContent: (score * scale).toFixed(decimals) })))));
    }
    if (sample.words?.some((word) => Array.isArray(word))) {
      const words = sample.words.flatMap((word) => {
        if (!Array.isArray(word)) return [word, " "];
        const [kind, said, heard] = word;
        const parts = [...(said ? [make("del", { textContent: said })] : []), ...(said && heard ? [" "] : []), ...(heard ? [make("ins", { textContent: heard })] : [])];
        return [make("span", { class: `word ${kind}` }, ...parts), " "];
      });
      found.push(make("p", { class: "words", dir: "auto" }, ...words));
    } else if (sample.said) {
      found.push(make("p", { class: "words", dir: "auto", textContent: sample.said }));
    }
    if (sample.note) found.push(make("p", { class: "small", textContent: sample.note }));
    return found;
  };

  const began = (known) => {
    for (const other of document.querySelectorAll("#samples audio")) if (other !== known.audio) other.pause();
    state.playing = known;
    known.element.classList.add("playing");
  };

  const play = (known) => {
    if (!known) return;
    const audio = known.audio;
    const begin = () => {
      audio.currentTime = state.position >= audio.duration - 0.05 ? 0 : state.position;
      audio.play();
    };
    for (const other of document.querySelectorAll("#samples audio")) if (other !== audio) other.pause();
    state.playing = known;
    if (audio.readyState >= 1) begin();
    else audio.addEventListener("loadedmetadata", begin, { once: true });
  };

  const stop = () => {
    for (const audio of document.querySelectorAll("#samples audio")) audio.pause();
    state.playing = null;
  };

  const set = (slot, known) => {
    for (const other of state.cards) other?.[slot].setAttribute("aria-pressed", String(other === known));
    state.slots[slot] = known;
  };

  const follow = () => {
    const known = state.playing;
    if (known) {
      if (!known.audio.paused) state.position = known.audio.currentTime;
      known.line.style.left = `${(100 * known.audio.currentTime) / known.longest}%`;
    }
    requestAnimationFrame(follow);
  };

  const move = (by) => {
    const count = state.tables[state.table].utterances.length;
    state.utterance = (state.utterance + by + count) % count;
    show();
  };

  const keys = {
    " ": () => { const known = state.playing || state.cards.find(Boolean); if (known) known.audio.paused ? play(known) : known.audio.pause(); },
    ",": () => nudge(-0.5), ".": () => nudge(0.5),
    ArrowLeft: () => move(-1), ArrowRight: () => move(1),
    a: () => play(state.slots.A), b: () => play(state.slots.B),
    A: () => state.playing && state.playing.A && set("A", state.playing), B: () => state.playing && state.playing.B && set("B", state.playing),
  };

  const nudge = (by) => {
    if (state.playing) state.playing.audio.currentTime = state.position = Math.max(0, state.position + by);
  };

  document.addEventListener("keydown", (event) => {
    if (!box || box.closest(".part").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const on = event.target;
    // Fields and players keep the keys that are theirs; a button keeps Space.
    if (on.matches("select, input, audio, summary") && !/^[0-9abAB]$/.test(event.key)) return;
    if (on.matches("select, input[type=search]") || (on.matches("button") && event.key === " ")) return;
    const deed = /^[0-9]$/.test(event.key) ? () => play(state.cards[(Number(event.key) + 9) % 10]) : keys[event.key];
    if (!deed) return;
    event.preventDefault();
    deed();
  });

  if (box) {
    page.opened.listen = ([table, id]) => {
      start();
      const wanted = state.tables[Number(table)]?.utterances.findIndex((u) => u.id === id);
      if (id && wanted >= 0) { state.table = Number(table); state.utterance = wanted; fill(); }
    };
    at("listen-table").addEventListener("change", (event) => { state.table = Number(event.target.value); state.utterance = 0; fill(); });
    at("listen-utterance").addEventListener("change", (event) => { state.utterance = Number(event.target.value); show(); });
    at("listen-previous").addEventListener("click", () => move(-1));
    at("listen-next").addEventListener("click", () => move(1));
    at("blind").addEventListener("change", (event) => { state.blind = event.target.checked; show(); });
    at("export").addEventListener("click", () => page.votes.export(state));
  }
}
