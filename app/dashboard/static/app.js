// What makes the pages pleasanter. Every page reads and every form works without it.
(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  function localTimes(root) {
    for (const time of all("time[datetime]", root)) {
      const moment = new Date(time.dateTime);
      if (isNaN(moment) || time.dataset.done) continue;
      time.title = time.textContent;
      const today = moment.toDateString() === new Date().toDateString();
      time.textContent = today ? moment.toLocaleTimeString() : moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
      time.dataset.done = "1";
    }
  }

  function copyButtons(root) {
    for (const block of all(".copy", root)) {
      if (!navigator.clipboard || block.querySelector("button")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Copy";
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(block.querySelector("pre").textContent);
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy"), 1500);
      });
      block.append(button);
    }
  }

  // Several single images: a field for the label of each, filled in where its folder says it.
  function labels(input) {
    const place = input.form.querySelector("[data-labels]");
    if (!place) return;
    const many = input.files.length > 1 ? [...input.files] : [];
    place.replaceChildren(...many.map((file, n) => {
      const box = document.createElement("div"), label = document.createElement("label"), text = document.createElement("input");
      box.className = "field";
      label.htmlFor = text.id = `label-${n}`;
      label.textContent = `Label of ${file.name}`;
      Object.assign(text, { type: "text", name: "label", required: true, maxLength: 200 });
      box.append(label, text);
      return box;
    }));
  }

  // Files: dropped on the form's area, or pasted anywhere on the page.
  function dropAreas(root) {
    for (const area of all("[data-drop]", root)) {
      const input = area.querySelector("input[type=file]");
      const give = (files) => {
        if (!files.length) return;
        const moved = new DataTransfer();
        [...files].forEach((file) => moved.items.add(file));
        input.files = moved.files;
        input.dispatchEvent(new Event("change", { bubbles: true }));
      };
      for (const kind of ["dragenter", "dragover"])
        area.addEventListener(kind, (event) => { event.preventDefault(); area.classList.add("over"); });
      for (const kind of ["dragleave", "drop"])
        area.addEventListener(kind, (event) => { event.preventDefault(); area.classList.remove("over"); });
      area.addEventListener("drop", (event) => give(event.dataTransfer.files));
      if (area.dataset.drop === "paste")
        document.addEventListener("paste", (event) => give(event.clipboardData.files));
      const said = area.querySelector("[data-chosen]");
      input.addEventListener("change", () => {
        const sum = [...input.files].reduce((bytes, file) => bytes + file.size, 0);
        const size = sum < 1e6 ? `${Math.ceil(sum / 1e3)} kB` : `${(sum / 1e6).toFixed(1)} MB`;
        if (said) said.textContent = `${input.files.length === 1 ? input.files[0].name : `${input.files.length} files`} (${size})`;
        labels(input);
        if (area.dataset.send !== undefined && input.files.length) input.form.requestSubmit();
      });
    }
  }

  // One address per checkpoint and picture: the slider changes them.
  function sliders(root) {
    for (const slider of all("[data-slider]", root)) {
      const frames = JSON.parse(slider.dataset.slider);
      const said = document.getElementById(slider.dataset.said);
      slider.addEventListener("input", () => {
        const { text, ...sources } = frames[slider.value];
        for (const [id, source] of Object.entries(sources)) {
          const image = document.getElementById(id);
          if (image) image.src = source;
        }
        said.textContent = text;
      });
    }
  }

  function live(root) {
    const place = root.querySelector("#live[data-stream]");
    if (!place || !window.EventSource) return;
    const source = new EventSource(place.dataset.stream);
    let busy = false, again = false; // one request at a time, so that the chart is never ahead of the figures
    const soon = () => {
      again = busy;
      if (busy) return;
      busy = true;
      setTimeout(async () => {
        await htmx.ajax("GET", place.dataset.part, { target: "#live", swap: "innerHTML" }).catch(() => {});
        busy = false;
        start(document); // the requests and events below came with it
        document.dispatchEvent(new Event("reprog:moved"));
        if (again) soon();
      }, 700);
    };
    for (const kind of ["job", "job.step", "job.checkpoint", "job.paused", "job.resumed"]) source.addEventListener(kind, soon);
    for (const kind of ["job.succeeded", "job.failed", "job.cancelled"])
      source.addEventListener(kind, () => { source.close(); setTimeout(() => location.reload(), 400); });
    addEventListener("pagehide", () => source.close());
  }

  function start(root) {
    localTimes(root);
    copyButtons(root);
  }

  document.addEventListener("DOMContentLoaded", () => {
    start(document);
    dropAreas(document);
    sliders(document);
    for (const element of all("[data-needs-script]")) element.hidden = false;
    live(document);
    for (const element of all("[data-confirm]"))
      element.addEventListener("submit", (event) => { if (!confirm(element.dataset.confirm)) event.preventDefault(); });
  });
  document.addEventListener("htmx:afterSwap", (event) => start(event.target));
})();
