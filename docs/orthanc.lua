-- Series of radiographs of each stable study are sent to the service until it has taken them, and again only when their
-- instances have changed: results that come back make the study stable anew, and would otherwise send it round in a circle.
local PEER = 'osteon' -- as Orthanc's configuration calls the service, under DicomWeb, Servers
local SENT = '1042' -- a number that Orthanc leaves to its users
local CLASSES = { -- of radiographs, whose modality may be DR, RG, OT or missing
  ['1.2.840.10008.5.1.4.1.1.1'] = true,
  ['1.2.840.10008.5.1.4.1.1.1.1'] = true,
  ['1.2.840.10008.5.1.4.1.1.1.1.1'] = true
}
local PATIENCE = 3600 -- seconds for which a service that is away, or refuses, is asked again
local underway = {} -- what Orthanc's jobs are sending, by job

local function send(parcel)
  -- In the background: a rule holds the lock that each of Orthanc's own answers needs.
  local job = {Resources = parcel.radiographs, Synchronous = false}
  local started = RestApiPost('/dicom-web/servers/' .. PEER .. '/stow', DumpJson(job, true))
  underway[ParseJson(started).ID] = parcel
end

local function ended(job)
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
  local parcel = ended(job)
  if parcel then
    RestApiPut('/studies/' .. parcel.study .. '/metadata/' .. SENT, parcel.instances)
  end
end

function OnJobFailure(job)
  local parcel = ended(job)
  if parcel and os.time() - parcel.since < PATIENCE then
    send(parcel)
  end
end
