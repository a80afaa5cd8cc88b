"use strict";
(() => {
  const form = document.getElementById("filters"), found = form.querySelector("output");
  const claims = [...document.querySelectorAll("details.claim")];
  const texts = new Map(claims.map((claim) => [claim, `${claim.id} ${claim.textContent}`.toLowerCase()]));
  const holders = [...document.querySelectorAll("details.cells, section.table, section.study")];

  function filter() {
    const asked = Object.fromEntries(new FormData(form));
    const words = asked.text.toLowerCase().split(/\s+/).filter(Boolean);
    const any = words.length > 0 || asked.document || asked.verdict || asked.evidence;
    let shown = 0;
    for (const claim of claims) {
      const fits = ["document", "verdict", "evidence"].every((key) => !asked[key] || claim.dataset[key] === asked[key])
        && words.every((word) => texts.get(claim).includes(word));
      claim.hidden = !fits;
      shown += fits;
    }
    for (const holder of holders) {
      const fits = holder.querySelector("details.claim:not([hidden])") !== null;
      holder.hidden = Boolean(any) && !fits;
      if (holder.matches("details.cells") && holder.open !== Boolean(any)) holder.open = Boolean(any) && fits;
    }
    document.body.classList.toggle("filtered", Boolean(any));
    found.textContent = `${shown} of ${claims.length} claims, checks among them`;
  }

  function open() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.closest("[hidden]") || getComputedStyle(target).display === "none" || !target.offsetParent) {
      if (document.body.classList.contains("filtered") && target.id !== "claims") { form.reset(); filter(); }
    }
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  }

  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  for (const link of document.querySelectorAll("[data-set-verdict]")) {
    link.addEventListener("click", () => { form.reset(); form.elements.verdict.value = link.dataset.setVerdict; filter(); });
  }
  for (const frame of document.querySelectorAll(".frame")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Enlarge";
    button.setAttribute("aria-label", `Enlarge: ${frame.querySelector("img").alt}`);
    button.addEventListener("click", () => {
      const large = frame.parentElement.classList.toggle("large");
      button.textContent = large ? "Fit" : "Enlarge";
      if (large) frame.tabIndex = 0; else frame.removeAttribute("tabindex");
    });
    frame.after(button);
  }
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const each of folded) each.open = true;
  });
  window.addEventListener("afterprint", () => { for (const each of folded) each.open = false; });
  window.addEventListener("hashchange", open);
  filter();
  open();
})();
