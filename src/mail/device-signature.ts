/**
 * Lines with which telephones and mail programs sign: `Sent from my iPhone`, `Gesendet mit der GMX Mail App`.
 *
 * Their owners begin sentences the same way (`Sent from Malmö, where is it?`, `From my side all is fine`), and one of
 * those that is left out is lost to a tool. So the beginning decides nothing: a device or a mail program must be named,
 * and every other word must be one that such lines are made of, or a name. A line more in a text does no harm.
 */

/** What such a line begins with, a row for each language. */
const SENT = new RegExp(
  `^(?:${[
    'sent (?:from|via|with|using|on|by(?= (?:my )?(?:samsung )?(?:galaxy|iphone|ipad|android|blackberry)))',
    'from(?= my )',
    'get(?= outlook for (?:ios|android|mac|windows))',
    '(?:gesendet|verschickt|diese nachricht wurde) (?:von|mit|über|aus)|von(?= .{1,80} gesendet$)',
    '(?:envoyé|expédié) (?:depuis|de|à partir de|avec|via)',
    'enviad[oa] (?:desde|con|por|do|da|de|a partir d[oe]|com|pelo|via)',
    'inviato (?:da|dal|dallo|con|tramite)',
    '(?:verzonden|verstuurd) (?:met|vanaf|via|vanuit|van)',
    'skickat från|skickat med|skickades från',
    'sendt (?:fra|med|via)',
    'wysłan[eoy] (?:z|ze|przez)',
    'отправлено (?:с|со|из|через)',
    '(?:надіслано|відправлено) (?:з|із|зі|через)',
  ].join('|')})(?!\\p{L})`,
  'iu',
);

const DEVICE = new RegExp(
  `(?:${[
    'iphone|ipad|ipod|apple watch|macbook|imac|android|galaxy|samsung|blackberry|huawei|xiaomi|redmi|oneplus|nokia',
    'lumia|motorola|fairphone|alcatel|xperia|windows|outlook|thunderbird|gmail|yahoo|proton|k-9|aquamail|bluemail',
    'fairemail|mailbird|mailbox|superhuman|tapatalk|hushmail|fastmail|tutanota|gmx|web\\.de|libero mail|mail ?app',
    '(?<=with )airmail|smartphone|smartfon|telefon|téléphone|telefoon|teléfono|telemóvel|tablet|mobiltelefon|mobilgerät',
    'handset|handheld|cellphone|móvil|celular|dispositivo|cellulare|appareil|toestel|laptop|computer',
    'телефон|смартфон|планшет|устройств|мобильн|яндекс|mail\\.ru|пристро',
    '(?<!\\p{L})(?:phone|mobile|cell|device|handy|gerät|portable|mobil|pc|mac|pixel|htc|lg)(?!\\p{L})',
  ].join('|')})`,
  'iu',
);
/** A model: `TI-85`, `SM-G960F`. Enough of a device where it is said whose. */
const MODEL = /^\p{L}{1,12}-?\p{Lu}?\d/u;
const WHOSE =
  /(?<!\p{L})(?:my|meinem|meiner|mon|ma|mi|meu|minha|mio|mia|mijn|min|mitt|mit|mojego|mojej|моего|моей|мого|моєї)(?!\p{L})/iu;

/** What may stand between and behind the names. */
const FILLERS = new Set(
  (
    'my a an the for using via and ios secure email e-mail mail app client from outlook ' +
    'von mit dem der meinem meiner einem einer mobilen für gesendet ' +
    'mon ma un une mi el la de du meu minha o pour avec para no per con dal mio mia posta ' +
    'mijn een mobiel voor met min mitt mit en för från fra til mojego mojej dla z моего моей мого моєї для почты'
  ).split(' '),
);
const NAME = /^[\p{Lu}\p{N}]/u;
const MAX_WORDS = 14;
/** A program stands on a device; what is sent on Monday is no program. */
const BETWEEN_WORDS = /\s+(?:(?:on|auf|sur|en|su|op|på|na) (?=android|ios|ip(?:hone|ad)))?/iu;

/** In scripts without blanks between words: the device in letters of ours, or a telephone in theirs. */
const CJK = new RegExp(
  `^(?:${[
    '(?:[从從]|[发發]自)我的?[\\s\\w.-]{0,30}(?:\\w|手机|手機|平板)\\s?(?:[发發傳传]送)?',
    '[\\s\\w.-]{0,30}(?:\\w|スマートフォン|スマホ|携帯)\\s?から送信',
    '나의 [\\s\\w.-]{0,30}(?:\\w|폰|갤럭시|휴대전화)에서 보냄',
  ].join('|')})$`,
  'u',
);
/** `Someone from mobile`. */
const FROM_MOBILE = /^\p{Lu}\p{L}{1,30} from mobile$/u;

const LINK = /[<([]?https?:\/\/\S*/gi;
const EXCUSE =
  /[.,;]?\s{1,3}(?:(?:please|pls) )?(?:excuse|forgive|pardon|ignore|sorry for|apologies for) (?:[\p{L}'’,&]{1,15} ){0,5}(?:typo\p{L}{0,3}|brevity|spelling|autocorrect|errors|mistakes|misspellings)$/iu;
const AROUND = /^[\s<([*_]+|[\s>)\]*_.]+$/g;

/** @param line of limited length. */
export function isDeviceSignature(line: string): boolean {
  const said = [LINK, /[[\]]/g, AROUND, EXCUSE, AROUND].reduce((text, none) => text.replace(none, ''), line);
  if (CJK.test(said) || FROM_MOBILE.test(said)) return true;
  const sent = SENT.exec(said);
  if (!sent || /[?!:;]/.test(said)) return false;
  const words = said.slice(sent[0].length).trim().split(BETWEEN_WORDS);
  const isOfDevice = DEVICE.test(said) || (WHOSE.test(said) && words.some((word) => MODEL.test(word)));
  return isOfDevice && words.length <= MAX_WORDS && words.every(isUsual);
}

function isUsual(word: string): boolean {
  return (
    [NAME, DEVICE, MODEL].some((known) => known.test(word)) ||
    FILLERS.has(word.toLowerCase()) ||
    !/\p{L}/u.test(word)
  );
}
