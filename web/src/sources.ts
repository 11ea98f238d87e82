/** Where pictures come from: photos, video files, the camera. */

/** The most pixels a canvas may have on telephones. */
const MOST_PIXELS = 16_000_000;

/** Moving pictures: a video element that plays. */
export interface Stream {
  video: HTMLVideoElement;
  /** The front camera is shown as a mirror shows it. */
  mirrored: boolean;
  close: () => void;
}

/** Decode a photo, upright, its colours as they are stored; transparent parts are laid over white. */
export async function decodePhoto(photo: Blob): Promise<ImageBitmap> {
  let picture: ImageBitmap;
  try {
    picture = await createImageBitmap(photo, { colorSpaceConversion: 'none' });
  } catch {
    throw new Error(`${nameOf(photo)} is not a picture that this browser can read.`);
  }
  const pixels = picture.width * picture.height;
  if (pixels <= MOST_PIXELS && photo.type === 'image/jpeg') return picture;
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / pixels));
  const [width, height] = [picture.width, picture.height].map((side) => Math.floor(side * scale));
  const canvas = new OffscreenCanvas(width!, height!);
  const context = canvas.getContext('2d')!;
  context.fillStyle = 'white';
  context.fillRect(0, 0, width!, height!);
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture, 0, 0, width!, height!);
  picture.close();
  return canvas.transferToImageBitmap();
}

/** Play a video file, again and again, without its sound. */
export async function openVideo(file: Blob): Promise<Stream> {
  const address = URL.createObjectURL(file);
  const video = newVideo();
  video.src = address;
  video.loop = true;
  const close = () => {
    video.removeAttribute('src');
    video.load();
    URL.revokeObjectURL(address);
  };
  try {
    await video.play();
  } catch {
    close();
    throw new Error(`${nameOf(file)} is not a video that this browser can play.`);
  }
  return { video, mirrored: false, close };
}

export type Facing = 'user' | 'environment';

/**
 * Open the camera in front of the device or at its back; any camera where there is one only.
 *
 * `onGone` hears when it ends by itself: unplugged, or taken away.
 */
export async function openCamera(facing: Facing, onGone: () => void): Promise<Stream> {
  if (!navigator.mediaDevices) {
    throw new Error('Browsers give the camera to pages on https:// or localhost only.');
  }
  let media: MediaStream;
  try {
    media = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: facing, width: { ideal: 1280 }, height: { ideal: 720 } },
    });
  } catch (error) {
    throw new Error(cameraProblem(error as DOMException));
  }
  const video = newVideo();
  video.srcObject = media;
  await video.play();
  for (const track of media.getTracks()) track.addEventListener('ended', onGone);
  // Cameras that do not say where they are sit on a screen, as the front camera does.
  const turned = media.getVideoTracks()[0]?.getSettings().facingMode;
  return {
    video,
    mirrored: turned !== 'environment',
    close: () => {
      media.getTracks().forEach((track) => track.stop()); // which is no "ended" event
      video.srcObject = null;
    },
  };
}

/** Whether there is another camera to turn to. Browsers tell when one has been allowed. */
export async function hasSeveralCameras(): Promise<boolean> {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter(({ kind }) => kind === 'videoinput').length > 1;
}

/** Wait until the video shows another frame than the one at time `seen`. */
export function nextFrame(video: HTMLVideoElement, seen: number): Promise<void> {
  return new Promise((resolve) => {
    const look = () => (isNew(video, seen) ? resolve() : waitForFrame(video, look));
    look();
  });
}

function isNew(video: HTMLVideoElement, seen: number): boolean {
  return video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && video.currentTime !== seen;
}

function waitForFrame(video: HTMLVideoElement, then: () => void): void {
  if ('requestVideoFrameCallback' in video) video.requestVideoFrameCallback(then);
  else requestAnimationFrame(then);
}

function newVideo(): HTMLVideoElement {
  const video = document.createElement('video');
  video.muted = true;
  video.playsInline = true;
  return video;
}

function nameOf(file: Blob): string {
  return file instanceof File ? file.name : 'This file';
}

function cameraProblem(error: DOMException): string {
  if (error.name === 'NotAllowedError') {
    return 'The camera was not allowed. Allow it in the browser’s settings for this page.';
  }
  if (error.name === 'NotFoundError') return 'This device has no camera.';
  return `The camera could not be opened (${error.message || error.name}).`;
}
