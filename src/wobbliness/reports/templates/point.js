// Figure 1, alive: the votes, W and its interval are the recorded ones; noisy copies are drawn here, to show what the noise looks like.
(() => {
  const holder = document.getElementById("one-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent), $ = (name) => document.getElementById(`one-${name}`);
  const NUM_COPIES = 8, WIDTH = 420;
  const fill = (select, names) => select.replaceChildren(...names.map((name, index) => new Option(name, index)));
  const network = () => data.networks[$("network").value], pattern = () => network().patterns[$("pattern").value];
  // names of classes; those that are numbers are called class 0, class 1 ...
  const className = (label) => (/^\d+$/.test(network().classes[label]) ? "class " : "") + network().classes[label];
  const normals = (seed) => { // Box-Muller over a 32-bit generator (mulberry32): the same copies every time
    const uniform = () => { seed = (seed + 0x6d2b79f5) | 0; let t = Math.imul(seed ^ (seed >>> 15), 1 | seed); t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t; return ((t ^ (t >>> 14)) >>> 0) / 4294967296; };
    return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  };
  const paint = (canvas, pixels, { height, width, channels }, sigma, seed) => {
    canvas.width = width; canvas.height = height;
    const image = new ImageData(width, height), normal = normals(seed), area = height * width;
    for (let place = 0; place < area; place++) {
      for (let channel = 0; channel < 3; channel++) {
        const own = Math.min(channel, channels - 1);
        image.data[4 * place + channel] = own < channel ? image.data[4 * place] : pixels[own * area + place] + (sigma ? 255 * sigma * normal() : 0);
      }
      image.data[4 * place + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  };
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const showPictures = (chosen, index, sigma) => {
    const recorded = chosen.pictures && chosen.pictures[index], pixels = recorded || data.standins[chosen.trigger] || data.standins[""];
    const values = bytes(pixels), shape = recorded ? data.shape : data.standin_shape;
    paint($("picture"), values, shape, 0, 0);
    [...$("copies").children].forEach((canvas, copy) => paint(canvas, values, shape, sigma, 1000 * index + copy + 1));
    $("picture-title").textContent = recorded ? `Test point ${chosen.points[index]}` : chosen.trigger in data.standins && chosen.trigger ? `The trigger ${chosen.trigger}, on grey` : "Plain grey";
    $("picture-note").textContent = recorded ? "The eight noisy copies are drawn for illustration."
      : "The records hold no picture of this point, so the noise is shown on a stand-in; the votes are of the real image.";
  };
  const number = (value) => value === 0 ? "0" : value < 0.001 ? value.toExponential(1) : value.toFixed(3);
  const showVotes = (votes, label) => {
    const total = votes.reduce((sum, count) => sum + count, 0);
    $("votes").replaceChildren(...votes.map((count, name) => {
      const row = document.createElement("li");
      row.className = name === label ? "own" : "";
      row.dataset.votes = count;
      const title = document.createElement("span"), bar = document.createElement("div"), amount = document.createElement("span");
      title.textContent = `${className(name)}${name === label ? " *" : ""}`;
      bar.innerHTML = `<i style="width:${(100 * count) / total}%"></i>`;
      amount.textContent = count;
      row.append(title, bar, amount);
      return row;
    }));
    $("draws").textContent = total;
  };
  const showPlace = (boxes, title, [w, lower, upper], largest) => {
    const at = (value) => 110 + (value / largest) * (WIDTH - 125), rows = [["clean", boxes.clean, "var(--series-1)"], [title, boxes.batch, "var(--series-2)"]].filter(([, box]) => box);
    const box = ([name, [low, q25, q75, high, mean], colour], index) => {
      const y = 16 + 34 * index;
      return `<text x="0" y="${y + 12}">${name}</text><g stroke="${colour}" stroke-width="1.5"><line x1="${at(low)}" x2="${at(high)}" y1="${y + 8}" y2="${y + 8}"/>` +
        `<rect x="${at(q25)}" y="${y}" width="${Math.max(1, at(q75) - at(q25))}" height="16" fill="${colour}" fill-opacity=".25"/></g>` +
        `<line x1="${at(mean)}" x2="${at(mean)}" y1="${y - 2}" y2="${y + 18}" stroke="currentColor" stroke-width="2"/>`;
    };
    const y = 16 + 34 * rows.length, ticks = [0, 0.5, 1, 1.5, 2].filter((tick) => tick < largest - 0.4);
    $("place").innerHTML = rows.map(box).join("") +
      `<text x="0" y="${y + 9}">this point</text><line x1="${at(lower)}" x2="${at(upper)}" y1="${y + 5}" y2="${y + 5}" stroke="currentColor" stroke-width="2"/><circle cx="${at(w)}" cy="${y + 5}" r="5.5" fill="currentColor"/>` +
      ticks.map((tick) => `<text x="${at(tick)}" y="${y + 30}" text-anchor="middle">${tick}</text>`).join("") + `<text x="${at(largest)}" y="${y + 30}" text-anchor="end">W (nats)</text>`;
    $("place").setAttribute("aria-label", `W of this point ${number(w)} nats; ` + rows.map(([name, box]) => `mean of the ${name} batch ${number(box[4])}`).join(", "));
  };
  const show = () => {
    const chosen = pattern(), index = +$("point").value, step = +$("sigma").value, sigma = data.sigmas[step];
    const votes = chosen.votes[index][step], w = chosen.w[index][step], leader = votes.indexOf(Math.max(...votes));
    $("sigma-value").textContent = sigma;
    $("sigma").setAttribute("aria-valuetext", `sigma ${sigma}`);
    $("w").textContent = number(w[0]);
    $("w").dataset.value = w[0];
    $("says").textContent = `95 % interval ${number(w[1])} to ${number(w[2])}. ${votes[leader]} of the copies were named ${className(leader)}; the point is of class ${network().classes[chosen.labels[index]]} (*).`;
    showVotes(votes, chosen.labels[index]);
    showPlace(chosen.boxes[step], chosen.short, w, Math.log(votes.length));
    showPictures(chosen, index, sigma);
  };
  const newPattern = () => { // the same image with another pattern, where it was measured
    const before = parseInt($("point").selectedOptions[0]?.text, 10);
    fill($("point"), pattern().points.map((point, index) => `${point}, ${className(pattern().labels[index])}`));
    $("point").selectedIndex = Math.max(pattern().points.indexOf(before), 0);
    show();
  };
  const newNetwork = () => {
    const before = $("pattern").value && $("pattern").selectedOptions[0]?.text, names = network().patterns.map((entry) => entry.name);
    fill($("pattern"), names);
    const wanted = before ? names.indexOf(before) : names.findIndex((name) => name.startsWith("active"));
    $("pattern").value = Math.max(wanted, 0);
    newPattern();
  };
  $("copies").append(...Array.from({ length: NUM_COPIES }, () => document.createElement("canvas")));
  $("sigma").max = data.sigmas.length - 1;
  $("sigma").value = data.first_sigma;
  fill($("network"), data.networks.map((entry) => entry.name));
  $("network").addEventListener("change", newNetwork);
  $("pattern").addEventListener("change", newPattern);
  $("point").addEventListener("change", show);
  $("sigma").addEventListener("input", show);
  document.getElementById("one").classList.add("ready");
  newNetwork();
})();
