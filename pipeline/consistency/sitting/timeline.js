// What a sitting shows, for how long, and what it keeps of an answer. sit.py puts PLAN and jsPsych before it.

const PLAN = JSON.parse(document.getElementById("plan").textContent);
const [CIRCLES, SQUARES] = PLAN.keys;
const FEEDBACK = 900; // ms
const jsPsych = initJsPsych({
  display_element: "sitting",
  show_progress_bar: true,
  auto_update_progress_bar: false,
  message_progress_bar: "Done",
  minimum_valid_rt: 1, // ms; a key that comes with the mask is no answer to the image
  on_finish: end,
});
const person = { subj: "", session: PLAN.session };
const shown = []; // ms that each image was there, as this browser's clock has it

function minutes(trials) {
  const found = Math.ceil((trials * (PLAN.fixation + PLAN.image + PLAN.mask + PLAN.answer / 2)) / 60000);
  return found === 1 ? "a minute" : `${found} minutes`;
}
const keys = `<kbd>${CIRCLES}</kbd> more circles &nbsp; <kbd>${SQUARES}</kbd> more squares`;

const consent = {
  type: jsPsychHtmlButtonResponse,
  stimulus: `<div class="text"><h1>More circles or more squares?</h1>
    <p>You will see ${PLAN.trials.length} images of circles and squares, each for a moment, and say of which there are
    more. It takes about ${minutes(PLAN.trials.length + PLAN.practice.length)}. Networks have answered to the
    same images.</p>
    <ul><li>This page sends nothing, and stores nothing about you but what you type: a code that you choose, and your
    answers with the time that each took.</li>
    <li>At the end your browser saves them as a file on this computer, and shows them. Whom you give it to is up to
    you.</li>
    <li>You may stop at any moment: close the page, and nothing is kept.</li>
    <li>Images change fast and have strong contrasts. Do not go on if flicker harms you.</li></ul></div>`,
  choices: ["I have read this and take part"],
};

const form = {
  type: jsPsychSurveyHtmlForm,
  preamble: `<div class="text"><p>Choose a code, not your name. With it you can have your answers removed from an
    analysis later. Letters, digits and hyphens, 20 at most.</p></div>`,
  html: `<p><label>subject-<input type="text" name="code" id="code" required maxlength="20" pattern="[A-Za-z0-9\\-]+"
    title="letters, digits and hyphens"></label> &nbsp; session ${PLAN.session}</p>`,
  autofocus: "code",
  on_finish: (data) => {
    person.subj = `subject-${data.response.code}`;
  },
};

function words(html, on = {}) {
  return { type: jsPsychHtmlKeyboardResponse, stimulus: `<div class="text">${html}</div>`, choices: [" "], ...on };
}

// One part of a trial, on a canvas of as many pixels as the image has. `name` is for whoever watches.
function part(name, draw, rest) {
  return {
    type: jsPsychCanvasKeyboardResponse,
    canvas_size: [PLAN.side, PLAN.side],
    stimulus: (canvas) => {
      canvas.dataset.part = name;
      draw(canvas.getContext("2d"));
    },
    prompt: '<div class="below"></div>',
    choices: "NO_KEYS",
    ...rest,
  };
}

function cross(context) {
  const side = PLAN.side;
  context.fillStyle = "#fff";
  context.fillRect(side / 2 - side / 128, side / 2 - side / 24, side / 64, side / 12);
  context.fillRect(side / 2 - side / 24, side / 2 - side / 128, side / 12, side / 64);
}

function trial(picture, number, decoded) {
  const practice = number === null;
  const mask = jsPsych.randomization.sampleWithoutReplacement(PLAN.masks, 1)[0];
  let onset;
  const parts = [
    part("fixation", cross, { trial_duration: PLAN.fixation }),
    part("image", (context) => context.drawImage(decoded.get(picture.png), 0, 0), {
      trial_duration: PLAN.image,
      on_load: () => (onset = performance.now()),
    }),
    part("mask", (context) => context.drawImage(decoded.get(mask), 0, 0), {
      choices: [CIRCLES, SQUARES],
      prompt: `<div class="below">${keys}</div>`,
      stimulus_duration: PLAN.mask,
      trial_duration: PLAN.mask + PLAN.answer,
      on_load: () => practice || shown.push(performance.now() - onset),
      data: { part: practice ? "practice" : "answer" },
      on_finish: (data) => {
        const { condition, image, category } = picture;
        const object_response = data.response === null ? PLAN.no_answer : PLAN.answers[data.response === CIRCLES ? 0 : 1];
        const rt = data.rt === null ? "NaN" : (data.rt / 1000).toFixed(4);
        // as modelvshuman names an image: trial, experiment, person, condition, category, a number, image
        const parts = [String(number).padStart(4, "0"), "majority", person.subj, condition.replaceAll("/", "-")];
        const imagename = [...parts, category, "0", image].join("_");
        Object.assign(data, person, { trial: number, rt, object_response, category, condition, imagename });
        if (!practice) jsPsych.progressBar.progress = number / PLAN.trials.length;
      },
    }),
  ];
  if (practice) {
    parts.push({
      type: jsPsychHtmlKeyboardResponse,
      stimulus: () => {
        const { object_response, category } = jsPsych.data.get().last(1).values()[0];
        if (object_response === PLAN.no_answer) return "<p>Too late. Answer soon after the noise.</p>";
        return `<p>${object_response === category ? "Right" : "Wrong"}: more ${category}s.</p>`;
      },
      choices: "NO_KEYS",
      trial_duration: FEEDBACK,
    });
  }
  return parts;
}

function timeline(decoded) {
  const steps = [consent, form];
  const space = "<p>Press the space bar to go on.</p>";
  steps.push(
    words(`<h2>How it goes</h2><p>Look at the cross. An image follows, and then noise. Once the noise is there, press
      </p><p>${keys}</p><p>There are ${PLAN.answer / 1000} seconds for it. Where you are not sure, guess.</p>` +
      (PLAN.practice.length ? `<p>First, ${PLAN.practice.length} to practise, which are not kept. You are told whether
      you were right.</p>` : "") + space)
  );
  jsPsych.randomization.shuffle(PLAN.practice).forEach((picture) => steps.push(...trial(picture, null, decoded)));
  const told = PLAN.practice.length ? "no longer" : "not";
  steps.push(words(`<h2>Now the test</h2><p>${PLAN.trials.length} images; you are ${told} told whether you were right.
    There is a break after every ${PLAN.rest}.</p>${space}`));
  jsPsych.randomization.shuffle(PLAN.trials).forEach((picture, i) => {
    if (i && i % PLAN.rest === 0) {
      steps.push(words(`<h2>A break</h2><p>${i} of ${PLAN.trials.length} are done. Rest your eyes.</p>${space}`));
    }
    steps.push(...trial(picture, i + 1, decoded));
  });
  return steps;
}

function end() {
  const rows = jsPsych.data.get().filter({ part: "answer" }).filterColumns(PLAN.columns);
  const name = `${person.subj}_session-${PLAN.session}.csv`;
  const times = shown.map(Math.round).sort((a, b) => a - b);
  const median = times[Math.floor(times.length / 2)];
  jsPsych.getDisplayElement().innerHTML = `<div class="text"><h2>Thank you</h2>
    <p>Your browser has saved the ${rows.count()} trials as <b>${name}</b>. This is all that it holds:</p>
    <textarea readonly wrap="off" id="trials" aria-label="trials as CSV"></textarea>
    <p><button class="jspsych-btn" id="again">Save it again</button></p>
    <p>The images were shown for ${median} ms (median; ${times[0]} to ${times.at(-1)}), of ${PLAN.image} asked for.</p>
    </div>`;
  document.getElementById("trials").value = rows.csv();
  document.getElementById("again").addEventListener("click", () => rows.localSave("csv", name));
  rows.localSave("csv", name);
}

// Images are decoded before the first trial: none is late on the screen for that.
async function decode(addresses) {
  const images = await Promise.all(
    addresses.map(async (address) => {
      const image = new Image();
      image.src = address;
      await image.decode();
      return [address, image];
    })
  );
  return new Map(images);
}

decode([...PLAN.trials, ...PLAN.practice].map((picture) => picture.png).concat(PLAN.masks)).then((decoded) =>
  jsPsych.run(timeline(decoded))
);
