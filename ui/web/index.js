// Starts the page's own modules before Gradio starts, so that nothing is shown that they would change.

import { copy } from "./clipboard.js";
import { takePictures } from "./drop.js";
import { foldSettings } from "./fold.js";
import { pressKeys } from "./keyboard.js";
import { say, speak } from "./locale.js";
import { searchMenus } from "./menus.js";
import { followModes } from "./modes.js";
import { offerToRead } from "./offer.js";
import { paintPreviews } from "./paint.js";
import { watchProgress } from "./progress.js";
import { weighByKeys } from "./prompt-weights.js";
import { searchSettings } from "./settings-search.js";
import { leaveNumbers } from "./sliders.js";
import { splitPanels } from "./splitter.js";
import { switchTheme } from "./theme.js";
import { nameThings } from "./tooltips.js";

// for the scripts of Gradio's events, which cannot import
Object.assign((window.palimpsest ??= {}), { copy, translate: say });

switchTheme();
speak();
nameThings();
followModes();
splitPanels();
foldSettings();
watchProgress();
leaveNumbers();
searchMenus();
searchSettings();
pressKeys();
weighByKeys();
takePictures();
offerToRead();
paintPreviews();
