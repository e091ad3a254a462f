// Blind listening: a shuffled order, a vote for each sample, and all votes as csv.
{
  const kept = new Map();  // table, utterance and row → vote
  const words = ["bad", "poor", "fair", "good", "excellent"];
  const key = (state, sample) => JSON.stringify([state.table, state.utterance, sample.row.key]);

  const shuffle = (list) => {
    const draws = crypto.getRandomValues(new Uint32Array(list.length));
    for (let i = list.length - 1; i > 0; i--) {
      const j = draws[i] % (i + 1);
      [list[i], list[j]] = [list[j], list[i]];
    }
  };

  const field = (sample, state) => {
    const { make } = page;
    const own = key(state, sample);
    const name = `vote-${sample.place}`;
    const choices = words.map((word, i) => {
      const input = make("input", { type: "radio", name, value: i + 1, checked: kept.get(own)?.vote === i + 1, "aria-label": `${i + 1}, ${word}` });
      input.addEventListener("change", () => {
        kept.set(own, { table: state.tables[state.table].title, utterance: state.tables[state.table].utterances[state.utterance].id, row: sample.row, place: sample.place + 1, vote: i + 1 });
        told();
      });
      return make("label", { title: word }, input, make("span", { textContent: i + 1 }));
    });
    return make("fieldset", { class: "vote" }, make("legend", { textContent: "Vote" }), ...choices);
  };

  const told = () => {
    const button = document.getElementById("export");
    button.hidden = !kept.size;
    button.textContent = `Export ${kept.size} ${kept.size === 1 ? "vote" : "votes"} (csv)`;
  };

  // A spreadsheet takes a field that begins with one of these for a formula, whatever quotes are around it.
  const plain = (text) => (/^[=+\-@;\t\r]/.test(text) ? `'${text}` : text);
  const quoted = (value) => `"${plain(String(value ?? "")).replaceAll('"', '""')}"`;

  const csv = () => {
    const lines = [["table", "utterance", "system", "nfe", "row", "key", "sample", "vote"]];
    for (const { table, utterance, row, place, vote } of kept.values()) {
      lines.push([table, utterance, row.system, row.nfe, row.name, row.key, place, vote]);
    }
    return lines.map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
  };

  page.votes = { shuffle, field, export: () => page.download("votes.csv", csv()) };
}
