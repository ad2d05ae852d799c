/** The lines with which telephones and mail programs sign, and the sentences of people that begin as they do. */
import { describe, expect, test } from 'vitest';
import { newTextOf } from '../../src/mail/new-text.ts';

describe('a signature of a device is left out', () => {
  test.each([
    'Sent from my iPhone',
    'Sent from my iPhone. Please excuse typos and brevity.',
    'Sent from my Verizon, Samsung Galaxy smartphone',
    'Sent from my SM-G960F',
    'Sent from Mail for Windows 10',
    'Sent with Proton Mail secure email.',
    'Sent from Yahoo Mail on Android',
    'Sent from Outlook for Android<https://aka.ms/x?y=1>',
    '*Get Outlook for iOS* [https://aka.ms/x]',
    'From my phone',
    'Von meinem iPhone gesendet',
    'Gesendet mit der GMX Mail App',
    'Gesendet von Outlook für Android',
    'Envoyé de mon iPhone',
    'Envoyé depuis mon smartphone Samsung Galaxy.',
    'Enviado desde mi móvil',
    'Enviado do meu iPhone',
    'Inviato da Libero Mail per Android',
    'Verzonden vanaf mijn Galaxy',
    'Skickat från min iPhone',
    'Sendt fra Outlook til Android',
    'Wysłane z iPhone’a',
    'Отправлено с моего телефона',
    'Надіслано з iPhone',
    '从我的iPhone发送',
    '發自我的手機',
    'iPhoneから送信',
    '나의 iPhone에서 보냄',
  ])('%s', (line) => {
    expect(newTextOf(`Yes.\n\n${line}`)).toBe('Yes.');
    expect(newTextOf(`Yes.\n${line}\n\nOn 2 Feb 2026, Ann <ann@x.example> wrote:\n> Shall we?`)).toBe('Yes.');
  });
});

describe('a sentence of somebody’s own stays', () => {
  test.each([
    'From my side everything is fine.',
    'From my point of view we should go ahead.',
    'From my phone I cannot open the file.',
    'Sent by mistake, sorry!',
    'Sent by airmail.',
    'Sent by mobile crane, number 123',
    'Sent with DHL on Monday, number 123',
    'Sent from PC World on Monday',
    'Sent from my old address',
    'Sent from my iPhone, can you call me?',
    'Sent from my iPhone yesterday to Ann',
    'Get Outlook for everyone please',
    'Please call me from mobile',
    'Gesendet von DHL am Montag, Nummer 123',
    'Gesendet von meinem Büro',
    'Von mir gesendet',
    'Expédié de Paris lundi',
    'Envoyé de mon bureau',
    'Enviado desde Madrid el lunes',
    'Enviado do Brasil',
    'Inviato da Roma lunedì',
    'Verzonden met PostNL op maandag, nummer 123',
    'Skickat från Malmö i går, var är det?',
    'Sendt fra Oslo i går',
    'Wysłane z Warszawy',
    'Отправлено из Москвы',
    'Надіслано з Києва',
    '从我的角度看没问题',
    '東京から送信',
    '나의 집에서 보냄',
  ])('%s', (line) => {
    for (const text of [line, `Where is it?\n${line}`, `Hi,\n\nwhat do you think?\n\n${line}`])
      expect(newTextOf(text)).toBe(text);
  });
});

test('of a photo that a telephone sent nothing is left', () => {
  expect(newTextOf('Sent from my iPhone\n\n--\n')).toBe('');
});
