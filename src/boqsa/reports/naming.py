"""Names on the page of concepts: a field for each slot, and a bar that turns what is typed into a command and a file.

The page is one file without a server, so it cannot store the names itself. The rules are those of
`boqsa.inference.names.checked_names`, which has the last word: here they only help while one types.
"""

import shlex
from collections.abc import Mapping
from html import escape

_LONGEST = 60


def name_field(slot: int, names: Mapping[int, str], hint: str) -> str:
    """The field in which a slot is named.

    Args:
        slot: Its index.
        names: Names that there are already.
        hint: What stands in an empty field.
    """
    return (
        f'<label class="name">Name <input data-slot="{slot}" value="{escape(names.get(slot, ""))}" '
        f'placeholder="{escape(hint)}" maxlength="{_LONGEST}" autocomplete="off" spellcheck="false"></label>'
    )


def naming_bar(run: str, slots: int) -> str:
    """What stays at the foot of the window: how many slots are named, the command, and the file.

    Args:
        run: The run folder as it was typed.
        slots: K.
    """
    return (
        f'<aside id="naming" data-run="{escape(shlex.quote(run))}" hidden>'
        f'<p><strong id="named">0 of {slots} slots named</strong> <span id="said" role="status"></span></p>'
        '<pre id="command" tabindex="0"></pre>'
        '<p class="buttons"><button id="copy" type="button">Copy the command</button> '
        '<button id="download" type="button">Download names.json</button></p>'
        f"<script>{_SCRIPT}</script></aside>"
    )


_SCRIPT = r"""
(() => {
  const bar = document.getElementById("naming");
  const fields = [...document.querySelectorAll("input[data-slot]")];
  const part = name => document.getElementById(name);
  const quoted = text => "'" + text.replaceAll("'", "'\\''") + "'";
  let taken = true;  // what was typed is stored, copied or downloaded
  const typed = field => field.value.split(/\s+/).filter(Boolean).join(" ");

  function problem(field) {
    const name = typed(field), slot = field.dataset.slot;
    if (!name) return "";
    if (!/^[\p{L}\p{N}]/u.test(name)) return "a name begins with a letter or a digit";
    if (name.includes(":")) return "a name has no colon, which ends it in label maps";
    if (name.toLowerCase() === "outside") return "label maps call pixels outside the crop so";
    const number = /^slot (\d+)$/i.exec(name);
    if (number && number[1] !== slot) return "that is what a slot without a name is called";
    const same = fields.find(other => other !== field && typed(other).toLowerCase() === name.toLowerCase());
    return same ? `slot ${same.dataset.slot} has this name too; tell them apart, as "${name} 1" and "${name} 2"` : "";
  }

  function show() {
    let first = "";
    for (const field of fields) {
      const wrong = problem(field);
      field.setCustomValidity(wrong);
      field.setAttribute("aria-invalid", wrong ? "true" : "false");
      field.title = wrong;
      if (wrong && !first) first = `slot ${field.dataset.slot}: ${wrong}`;
      for (const place of document.querySelectorAll(`[data-name-of="${field.dataset.slot}"]`))
        place.textContent = typed(field);
    }
    const changed = fields.filter(field => typed(field) !== field.defaultValue);
    const named = fields.filter(typed).length;
    part("named").textContent = `${named} of ${fields.length} slots named`;
    part("said").textContent = first || (changed.length ? "not stored yet: run this, or use the file" : "");
    part("command").textContent = "boqsa concepts " + bar.dataset.run +
      changed.map(field => " --name " + quoted(field.dataset.slot + "=" + typed(field))).join("");
    part("command").hidden = !changed.length;
    part("copy").disabled = !changed.length || first !== "";
    part("download").disabled = !named || first !== "";
  }

  part("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(part("command").textContent);
      taken = true;
      part("said").textContent = "copied; paste it into a terminal";
    } catch {
      getSelection().selectAllChildren(part("command"));
      part("said").textContent = "the browser does not let a page copy; the command is selected";
    }
  });
  part("download").addEventListener("click", () => {
    const names = Object.fromEntries(fields.filter(typed).map(field => [field.dataset.slot, typed(field)]));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(names, null, 2) + "\n"], {type: "application/json"}));
    link.download = "names.json";
    link.click();
    URL.revokeObjectURL(link.href);
    taken = true;
    const gone = fields.filter(field => field.defaultValue && !typed(field));
    part("said").textContent = `boqsa concepts ${bar.dataset.run} --names names.json` +
      gone.map(field => ` --name ${field.dataset.slot}=`).join("") + " stores it with the run";
  });
  addEventListener("beforeunload", event => {
    if (!taken) event.preventDefault();
  });
  for (const field of fields)
    field.addEventListener("input", () => {
      show();
      taken = fields.every(other => typed(other) === other.defaultValue);
    });
  bar.hidden = false;
  show();
})();
"""

NAMING_STYLE = """
label.name { display: inline-flex; align-items: baseline; gap: .5rem; color: var(--quiet); font-size: .875rem; }
label.name input {
  font: inherit; font-size: 1rem; color: var(--ink); background: var(--ground); width: 16rem; max-width: 60vw;
  border: 1px solid var(--line); border-radius: 8px; padding: .35rem .6rem;
}
label.name input:focus { outline: 2px solid var(--accent); outline-offset: 1px; }
label.name input[aria-invalid="true"] { border-color: var(--bad); }
#naming {
  position: sticky; bottom: 0; z-index: 2; max-width: 62rem; margin: 2rem auto 0; padding: .6rem 1rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 12px 12px 0 0;
  box-shadow: 0 -4px 16px rgb(0 0 0 / .12); display: flex; flex-wrap: wrap; gap: .3rem 1rem; align-items: center;
}
#naming[hidden], #command[hidden] { display: none; }
#naming p { margin: 0; }
#naming > p:first-child { flex: 1 1 16rem; }
#said { color: var(--quiet); font-size: .875rem; margin-left: .5rem; }
#command {
  order: 3; flex: 1 0 100%; margin: 0; background: var(--ground); white-space: pre-wrap; padding: .5rem .7rem;
  overflow-wrap: anywhere;
}
#naming button {
  font: inherit; font-size: .875rem; font-weight: 600; padding: .35rem .8rem; border-radius: 8px; cursor: pointer;
  color: var(--card); background: var(--accent); border: 1px solid var(--accent);
}
#naming button#download { color: var(--accent); background: none; }
#naming button:disabled { opacity: .4; cursor: default; }
@media print { #naming { display: none; } }
"""
