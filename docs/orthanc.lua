-- Sends the radiographs of each stable study to Osteon, and tries again until Osteon has taken them.
-- A study is sent again only if its radiographs have changed: the results that come back make it stable once more, and
-- without this check it would be sent forever.
local PEER = 'osteon' -- name of the service in Orthanc's configuration, under DicomWeb, Servers
local SENT = '1042' -- number of the metadata that holds what was sent; Orthanc leaves numbers from 1024 on to its users
local CLASSES = { -- SOP classes of radiographs, whose modality may be DR, RG, OT or missing
  ['1.2.840.10008.5.1.4.1.1.1'] = true,
  ['1.2.840.10008.5.1.4.1.1.1.1'] = true,
  ['1.2.840.10008.5.1.4.1.1.1.1.1'] = true
}
local RETRY_SECONDS = 3600 -- how long to try again while the service is unavailable or refuses
local underway = {} -- what each of Orthanc's jobs is sending, by the job's ID

local function send(parcel)
  -- In the background, because this script holds a lock that Orthanc needs for each of its responses.
  local job = {Resources = parcel.radiographs, Synchronous = false}
  local started = RestApiPost('/dicom-web/servers/' .. PEER .. '/stow', DumpJson(job, true))
  underway[ParseJson(started).ID] = parcel
end

local function takeParcel(job)
  local parcel = underway[job]
  underway[job] = nil
  return parcel
end

local function isRadiographs(series)
  local modality, first = series.MainDicomTags.Modality, series.Instances[1]
  if modality == 'CR' or modality == 'DX' then
    return true
  end
  return first ~= nil and CLASSES[RestApiGet('/instances/' .. first .. '/metadata/SopClassUid')] == true
end

function OnStableStudy(study, tags, metadata, origin)
  local radiographs, instances = {}, {}
  for _, series in ipairs(ParseJson(RestApiGet('/studies/' .. study .. '/series'))) do
    if isRadiographs(series) then
      table.insert(radiographs, series.ID)
      for _, instance in ipairs(series.Instances) do
        table.insert(instances, instance)
      end
    end
  end
  table.sort(instances)
  local sent = table.concat(instances, ' ')
  if #radiographs > 0 and metadata[SENT] ~= sent then
    send({study = study, radiographs = radiographs, instances = sent, since = os.time()})
  end
end

function OnJobSuccess(job)
  local parcel = takeParcel(job)
  if parcel then
    RestApiPut('/studies/' .. parcel.study .. '/metadata/' .. SENT, parcel.instances)
  end
end

function OnJobFailure(job)
  local parcel = takeParcel(job)
  if parcel and os.time() - parcel.since < RETRY_SECONDS then
    send(parcel)
  end
end
