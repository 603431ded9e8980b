/* What the page says, in English and Chinese; `{n}` and the like are filled in by `say`. */
export const TEXTS = {
  en: {
    confidence: "confidence", not_sure: "not sure", looked: "looked at", whole: "the whole picture", end: "end of sentence", end_short: "end",
    places: ["top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right"],
    hint: "Point at a word, tap it, or use Tab and the arrow keys: the picture shows where the network looked. Choose another word, and the sentence goes on from there.",
    runners: "It could have said", goes_on: "go on with “{word}”", back: "Back to its own sentence", yours: "your choice", others: "Other captions it considered",
    log_prob: "log-probability", detail: "What happened inside", search: "The search", network: "Step by step", units: "Units and gates",
    search_hint: "The search keeps the {k} best beginnings at every step. Solid: kept. Faint: dropped. Point at one, or use the arrow keys, to see why.",
    fate_kept: "kept: one of the {k} best beginnings of this step",
    fate_beaten: "dropped: {score}, and the last one kept at this step had {bar}",
    fate_beaten_alone: "dropped: the others of this step were better",
    fate_ended: "a whole sentence: score {score}", fate_won: "the caption: score {score}, chosen among the whole sentences",
    fate_stopped: "given up: nothing that still grew could win any more",
    network_hint: "One function with the same weights at every step. It reads a word and its own state, and says the next word. Each little square is one unit of a layer: orange above zero, blue below.",
    start: "picture", says: "says", reads: "reads", layer: "layer {n}", attention: "attention", state: "state", nothing: "nothing yet",
    unit_value: "layer {layer}, unit {unit}, {step}: {value}",
    units_hint: "Every unit of a layer, one line each, over the steps from left to right. Point at one, or move the slider.",
    show: "Show", hidden: "output h", cells: "memory c", unit: "Unit",
    gate_i: "input gate i", gate_f: "forget gate f", gate_g: "candidate g", gate_o: "output gate o", gate_r: "reset gate r", gate_z: "update gate z", gate_n: "candidate n",
    saturated: "Share of gates that are shut (below 0.1) or open (above 0.9)", gate: "Gate", shut: "shut", open: "open",
    objects: "Objects found", picture_of: "picture with the caption: {caption}", table: "Every word in a table", word: "Word", probability: "Probability", where: "Where",
    made: "Written by recur with the model {model}.", busy: "thinking …", wait_detail: "One moment …", failed: "That did not work: {why}",
    winner: "chosen", no_detail: "This page leaves the inside of the network out.",
    offline_end: "This page holds one choice of another word a sentence; the service goes on from any.",
  },
  zh: {
    confidence: "置信度", not_sure: "不确定", looked: "注视", whole: "整幅图片", end: "句末", end_short: "句末",
    places: ["左上", "上方", "右上", "左侧", "中间", "右侧", "左下", "下方", "右下"],
    hint: "指向、点按一个词，或用 Tab 键和方向键，图片上就会显示网络当时注视的位置。换一个词，句子就从那里重新写下去。",
    runners: "它也可能说", goes_on: "改用“{word}”继续", back: "回到它自己的句子", yours: "你的选择", others: "其他候选描述",
    log_prob: "对数概率", detail: "网络内部", search: "搜索过程", network: "逐步展开", units: "单元与门",
    search_hint: "搜索在每一步保留 {k} 个最好的开头。实线：保留；浅色：舍弃。指向其中一个，或用方向键，看看原因。",
    fate_kept: "保留：这一步最好的 {k} 个开头之一", fate_beaten: "舍弃：{score}，而这一步最后保留的是 {bar}", fate_beaten_alone: "舍弃：这一步有更好的",
    fate_ended: "完整的句子：得分 {score}", fate_won: "最终描述：得分 {score}，从完整的句子中选出", fate_stopped: "放弃：仍在生长的句子已不可能胜出",
    network_hint: "每一步都是同一个函数、同一组权重。它读入一个词和自己的状态，说出下一个词。每个小方格是一层中的一个单元：橙色为正，蓝色为负。",
    start: "图片", says: "说出", reads: "读入", layer: "第 {n} 层", attention: "注意力", state: "状态", nothing: "尚未开口",
    unit_value: "第 {layer} 层，单元 {unit}，{step}：{value}",
    units_hint: "一层的全部单元，每行一个，从左到右是各个步骤。指向一个，或移动滑块。",
    show: "显示", hidden: "输出 h", cells: "记忆 c", unit: "单元",
    gate_i: "输入门 i", gate_f: "遗忘门 f", gate_g: "候选 g", gate_o: "输出门 o", gate_r: "重置门 r", gate_z: "更新门 z", gate_n: "候选 n",
    saturated: "关闭（低于 0.1）与打开（高于 0.9）的门所占比例", gate: "门", shut: "关闭", open: "打开",
    objects: "检测到的物体", picture_of: "图片，描述为：{caption}", table: "逐词列表", word: "词", probability: "概率", where: "位置",
    made: "由 recur 生成，模型：{model}。", busy: "思考中……", wait_detail: "请稍候……", failed: "未能完成：{why}",
    winner: "选中", no_detail: "本页不含网络内部数据。",
    offline_end: "本页为每个句子保存了一次换词；服务可以从任何词继续。",
  },
};

export const END = "<end>";

let chosen = "en";
export const language = () => chosen;
export const setLanguage = (name) => { chosen = TEXTS[name] ? name : "en"; };

/* A text in the language of the page, with its gaps filled in. */
export function say(key, gaps = {}) {
  const text = TEXTS[chosen][key];
  return typeof text === "string" ? text.replace(/\{(\w+)\}/g, (_, name) => gaps[name]) : text;
}

export const percent = (p) => (p >= 0.01 ? `${Math.round(100 * p)} %` : "< 1 %");
